"""What loading a model returns."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import nn


class LoadedModel(NamedTuple):
    """A model as its own library made it, in fp32, and what its checkpoint did not supply.

    ``new`` are the qualified names of parameters that were missing or had another shape in the
    checkpoint (with no checkpoint read: those of the head); they always train (DESIGN, invariant 5).
    ``dropped`` says of those that were in it, by name, why they were not taken.
    ``processor`` is the tokenizer or image processor that is saved beside the weights.
    """

    module: nn.Module
    new: tuple[str, ...]
    library: Literal["transformers", "timm"]
    processor: Any
    source: str  # as the user wrote it: a Hub id, a folder, or timm:<name>
    dropped: Mapping[str, str] = MappingProxyType({})
