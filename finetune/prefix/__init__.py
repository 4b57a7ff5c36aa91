"""What the frozen layers at the bottom of a model give, computed once: whether it pays, its size, its store."""
