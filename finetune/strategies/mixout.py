"""Mixout: weights that fall back on the pretrained ones at random during training."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Gt, Lt

from .base import Phase
from .chains import check_chain, renewed
from .composition import base_or_full, phases_below

if TYPE_CHECKING:
    from torch import nn

    from ..layers import LayerGroup


@dataclass(frozen=True, kw_only=True)
class Mixout:
    """In each forward of training, columns of a linear layer's matrix are the pretrained ones (Lee et al. 2020).

    arXiv 1909.11299: with probability p all that leaves an input neuron is as it was, and the matrix is
    corrected so that its mean is the trained one; evaluation takes the trained one, and that is what is saved, as
    plain weights. Every linear layer whose matrix the checkpoint supplied is mixed; biases, embeddings and norms are
    not. Dropout stays as the model's config has it. A frozen matrix is as it was anyway.

    Args:
        probability: p, of a column to be the pretrained one; 0.1 is that of Zhang et al. 2021 (arXiv 2006.05987).
        base: A strategy for the course, such as discriminative.
    """

    name: Literal["mixout"] = "mixout"
    probability: Annotated[float, Gt(0), Lt(1)] = 0.1
    base: Any = None

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_chain(self)

    def adapt(self, model: nn.Module, new: Collection[str]) -> nn.Module:
        """The model, whose linear layers hold the matrices that they mix with beside their own.

        Raises:
            ValueError: It has no linear layer with weights of the checkpoint.
        """
        from ..encoders.mixed_linear import mix_linear

        model = base_or_full(self.base).adapt(model, new)
        if not mix_linear(model, self.probability, without={*new, *renewed(self.base, model)}):
            raise ValueError(
                f"strategy: mixout mixes linear layers with the checkpoint's, and of {type(model).__name__} there are "
                "none; leave mixout out"
            )
        return model

    def groups(self, layers: Sequence[LayerGroup], new: Collection[str]) -> tuple[LayerGroup, ...]:
        return base_or_full(self.base).groups(layers, new)

    def phases(self, groups: Sequence[LayerGroup]) -> tuple[Phase, ...]:
        return phases_below(self.base, groups)
