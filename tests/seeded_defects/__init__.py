"""Defects that are put into a copy of the tree on purpose, each with the test that must turn red."""
