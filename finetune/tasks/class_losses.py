"""What a task of classes minimises: its ``loss``, and how much each class counts in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge, Lt

from ..choices import listed, nearest
from ..errors import ConfigError
from .base import Output

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..data.store import Batch
    from ..data.table import Table

ClassWeights = Literal["none", "balanced"] | dict[str, float]


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross-entropy.

    Args:
        label_smoothing: Share of the target that all classes get alike; 0.1 in Szegedy et al. 2016, section 7.
        class_weights: ``none``; ``balanced``: N/(K n) for a class with n of the N training examples, K classes, as
            scikit-learn has it after King & Zeng 2001; or weights by class, 1 for those that are left out. The loss
            of an update is the weighted mean, sum(w l)/sum(w), as ``torch.nn.CrossEntropyLoss(weight=w)`` takes it
            over one batch.
    """

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    class_weights: ClassWeights = "none"

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        _check_weights(self.class_weights)

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        from ..losses import cross_entropy

        return cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


@dataclass(frozen=True, kw_only=True)
class Focal:
    """Focal loss: cross-entropy in which items that are certain already hardly count (Lin et al. 2017).

    Args:
        gamma: Power of what the probability of the label lacks to 1; 2 is the paper's, 0 cross-entropy.
        class_weights: As in ``cross_entropy``; the paper's alpha.
    """

    name: Literal["focal"] = "focal"
    gamma: Annotated[float, Ge(0)] = 2.0
    class_weights: ClassWeights = "none"

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        _check_weights(self.class_weights)

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        from ..losses import focal

        return focal(logits, labels, gamma=self.gamma)


ClassLoss = CrossEntropy | Focal  # ``losses`` gives one per item, without the weights of classes


def weights_by_class(
    asked: ClassWeights, *, label_names: Sequence[str], labels: np.ndarray
) -> tuple[float, ...] | None:
    """One weight for each class, in the order of the model's outputs; None where all are alike.

    Args:
        asked: As the loss has it.
        label_names: The classes.
        labels: Class numbers of the training split; negative ones are no labels.

    Raises:
        ConfigError: A weight for what is no class.
    """
    if asked == "none":
        return None
    if asked == "balanced":
        counts = np.bincount(labels[labels >= 0].reshape(-1), minlength=len(label_names))
        known = counts > 0
        even = counts.sum() / known.sum()
        found = tuple(float(even / count) if count else 1.0 for count in counts)
    else:
        assert not isinstance(asked, str)
        for name in asked:
            if name not in label_names:
                raise ConfigError(
                    f"task.loss.class_weights: {name!r} is no class of this data{nearest(name, label_names)}; "
                    f"there are {listed(label_names, most=20)}"
                )
        found = tuple(float(asked.get(name, 1.0)) for name in label_names)
    return None if len(set(found)) == 1 else found


def weights_of_table(asked: ClassWeights, train: Table) -> tuple[float, ...] | None:
    """As ``weights_by_class``, of a table of examples with one class each."""
    if asked == "none":
        return None
    assert train.labels is not None and train.label_names is not None
    return weights_by_class(asked, label_names=train.label_names, labels=train.labels)


def class_output(
    loss: ClassLoss, logits: Tensor, batch: Batch, *, by_class: tuple[float, ...] | None, is_training: bool
) -> Output:
    """What a forward gives for examples of one class each.

    Args:
        loss: Of the task.
        logits: (batch, classes).
        batch: Without ``labels`` there are no losses.
        by_class: From ``weights_by_class``.
        is_training: Whether the model trains.
    """
    weights = batch.get("weights")
    if "labels" not in batch:
        return Output(None, weights, logits)
    losses, weights = weighted_losses(
        loss, logits, batch["labels"], weights, by_class=by_class, is_training=is_training
    )
    return Output(losses, weights, logits)


def weighted_losses(
    loss: ClassLoss,
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    *,
    by_class: tuple[float, ...] | None,
    is_training: bool,
) -> tuple[Tensor, Tensor | None]:
    """Losses and weights of items, as ``Output`` wants them.

    In training they are ``loss``; in evaluation plain cross-entropy, so that runs with different losses compare.

    Args:
        loss: Of the task.
        logits: (items, classes).
        labels: (items,) int64.
        weights: (items,), 0 for padding; None where nobody asks for a mean.
        by_class: From ``weights_by_class``.
        is_training: Whether the model trains.
    """
    if not is_training:
        from ..losses import cross_entropy

        return cross_entropy(logits, labels), weights
    losses = loss.losses(logits, labels)
    if by_class is None or weights is None:
        return losses, weights
    return losses, weights * _table(by_class, logits.device)[labels].to(losses.dtype)


@lru_cache(maxsize=8)
def _table(weights: tuple[float, ...], device: torch.device) -> Tensor:
    """On the device once, (classes,) float64: a copy in every step would make the host wait."""
    import torch

    return torch.tensor(weights, dtype=torch.float64, device=device)


def _check_weights(asked: object) -> None:
    if isinstance(asked, str):
        if asked not in ("none", "balanced"):
            words = ("none", "balanced")
            raise ValueError(
                f"class_weights: got {asked!r}{nearest(asked, words)}; expected none, balanced, or weights by class: "
                "{spam: 5}"
            )
        return
    if not isinstance(asked, dict) or not asked:
        raise ValueError(f"class_weights: got {asked!r}; expected none, balanced, or weights by class: {{spam: 5}}")
    wrong = {name: weight for name, weight in asked.items() if not _is_weight(weight)}
    if wrong:
        raise ValueError(
            f"class_weights: {wrong} are no weights; give numbers above 0, or leave the class out of the data"
        )


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
