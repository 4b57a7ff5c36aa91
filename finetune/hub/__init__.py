"""The way out of a run folder: a model card with what was measured, and one commit to the Hub."""
