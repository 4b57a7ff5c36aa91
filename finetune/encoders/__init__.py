"""The one wrapped forward of a model, and the ways through it."""

from .forward import PREFIX, Forward
from .packing import padded

__all__ = ["PREFIX", "Forward", "padded"]
