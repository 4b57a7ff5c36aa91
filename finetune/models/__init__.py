"""Models from transformers and timm: loading them, and writing them as those libraries read them."""

from __future__ import annotations

from .loaded import LoadedModel
from .loading import Weights, load_image_classifier, load_text_classifier
from .saving import save_model

__all__ = ["LoadedModel", "Weights", "load_image_classifier", "load_text_classifier", "save_model"]
