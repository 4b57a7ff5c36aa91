"""The peers, each as its own documentation says to use it."""
