"""Work in forked children: what the parent does before, and what comes back."""
