"""The one wrapped forward of a model."""

from .forward import PREFIX, Forward

__all__ = ["PREFIX", "Forward"]
