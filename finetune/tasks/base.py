"""What a task is: data, a model for it, a loss per item and a score."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.store import Batch, Store
    from ..models.loaded import LoadedModel
    from ..progress import Progress


class Output(NamedTuple):
    """What one forward gives, unreduced.

    The loss of an update is sum(losses * weights) / sum(weights) over all its micro-batches on all
    ranks; a weight of 0 is padding. ``losses`` is None when the batch has no labels.
    """

    losses: Tensor | None  # (items,)
    weights: Tensor | None  # (items,)
    logits: Tensor  # (batch, classes)


class Predictions(NamedTuple):
    """Every example of a split exactly once, in the order of the split."""

    logits: np.ndarray  # (examples, classes), float32
    labels: np.ndarray | None  # (examples,)


@runtime_checkable
class Task(Protocol):
    """Data, model, loss and score of one kind of problem. Fields are nouns, methods are verbs."""

    def load_model(self) -> LoadedModel:
        """The model in fp32, and which of its weights are new; new weights draw from torch's global generator."""

    def splits(self) -> tuple[str, ...]:
        """The splits there are, of ``"train"``, ``"validation"`` and ``"test"``."""

    def load_split(self, name: str) -> Store:
        """The split ``"train"``, ``"validation"`` or ``"test"``.

        Raises:
            DataError: The split does not exist, or does not fit the task.
        """

    def forward(self, model: nn.Module, batch: Batch, progress: Progress) -> Output:
        """Losses per item; ``batch["weights"]`` (batch,) is 0 for examples that only fill up a rank."""

    def score(self, predictions: Predictions) -> dict[str, float]:
        """Metrics by name."""
