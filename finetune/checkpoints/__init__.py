"""Checkpoints and run folders: tensors and JSON in, out; whole or not there at all. Knows nothing of training."""
