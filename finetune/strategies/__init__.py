"""Transfer-learning strategies: which layer groups train, from when, and how fast."""

from .base import Phase, Plateau, Rate, Strategy
from .discriminative import Discriminative
from .full import Freeze, Full
from .gradual_unfreeze import GradualUnfreeze
from .lora import LoRA

__all__ = [
    "Discriminative",
    "Freeze",
    "Full",
    "GradualUnfreeze",
    "LoRA",
    "Phase",
    "Plateau",
    "Rate",
    "Strategy",
]
