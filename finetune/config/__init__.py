"""A run as data: YAML and ``key=value`` over a recipe, checked against one schema, and written back as YAML."""

from .dumping import dump
from .resolving import Resolved, resolve, resolved

__all__ = ["Resolved", "dump", "resolve", "resolved"]
