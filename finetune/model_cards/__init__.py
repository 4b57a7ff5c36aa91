"""What is written beside a model's files: its card, and a probe to check the files against."""
