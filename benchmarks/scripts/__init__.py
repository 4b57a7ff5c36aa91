"""Scripts as users write them, to measure how long a process takes to its first update."""
