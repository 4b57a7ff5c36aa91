"""Tasks in which an example may have several labels, or none: of texts and of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from annotated_types import Ge

from ..choices import listed, nearest
from ..data.augment import Augment
from ..data.spec import Data
from ..data.truncation import TokenizerTruncation, Truncation
from ..errors import ConfigError
from ..metrics.external import External
from .base import Output, Predictions
from .scoring import check_metrics, scored
from .splits import Splits, as_data
from .text import _Texts

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..cached_arrays import ArrayCache
    from ..data.image_store import ImageStore
    from ..data.pixels import Pixels
    from ..data.store import Batch
    from ..data.table import Table
    from ..data.text_store import TextStore
    from ..models.loaded import LoadedModel
    from ..progress import Progress

PositiveWeights = Literal["none", "balanced"] | dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TextMultiLabel:
    """Which of several labels a text, or a pair of texts, has: any number of them.

    Each label is a decision of its own, by a sigmoid; the loss of a text is the mean of its labels' cross-entropies.

    Args:
        model: A Hub id or a local folder of transformers, or ``minilm``.
        data: What to learn from; in Python also a name, or a mapping of splits and columns.
        max_length: Tokens after which a text is cut, special tokens included.
        truncation: Which tokens of a longer text stay: of its head, its tail, or both.
        positive_weights: How much a label that is there counts in training, where absent it counts 1: ``none``; what
            ``balanced`` says, absent / present in train; or by label, 1 for those that are left out. Evaluation
            reports the plain loss whatever this is.
        focal_gamma: Power of what the probability of each right decision lacks to 1, by which its term is multiplied
            in training: a focal loss (Lin et al. 2017, arXiv 1708.02002, who take 2); 0: plain.
        metrics: The first is the default of ``metric``.
        weights: ``"scratch"`` takes the checkpoint's shape and tokenizer, and random weights.
        allow_partial: Take a checkpoint that lacks weights of its trunk; they start at random, and train.
    """

    name: Literal["text_multi_label"] = "text_multi_label"
    model: str
    data: Data
    max_length: Annotated[int, Ge(1)] = 128
    truncation: Truncation = TokenizerTruncation()
    positive_weights: PositiveWeights = "none"
    focal_gamma: Annotated[float, Ge(0)] = 0.0
    metrics: tuple[str | External, ...] = ("f1_micro", "f1_macro", "mean_average_precision", "subset_accuracy")
    weights: Literal["pretrained", "scratch"] = "pretrained"
    allow_partial: bool = False

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", as_data(self.data))
        _check_weights(self.positive_weights)

    @cached_property
    def _texts(self) -> _Texts:
        return _Texts(
            self.model, data=self.data, max_length=self.max_length, truncation=self.truncation, kind=self.name
        )

    @property
    def id2label(self) -> dict[int, str]:
        """The labels of the training split by number; a checkpoint that knows the same ones keeps its order."""
        return self._texts.splits.id2label

    def load_model(self) -> LoadedModel:
        """The checkpoint with a head for the labels of the training split."""
        return self._texts.load_model(
            id2label=self.id2label,
            problem="multi_label",
            weights=self.weights,
            allow_partial=self.allow_partial,
        )

    def splits(self) -> tuple[str, ...]:
        """The splits there are."""
        from ..data.sources import splits

        return splits(self.data, task=self.name)

    def keep_tokens_in(self, cache: ArrayCache | None) -> None:
        """Where the splits that are loaded from now on are kept tokenised; None: nowhere."""
        self._texts.cache = cache

    def load_split(self, name: str) -> TextStore:
        """The split ``"train"``, ``"validation"`` or ``"test"``, tokenised.

        Raises:
            DataError: The split does not exist, or does not fit the task.
            ConfigError: ``max_length`` is more than the model's positions; a metric or a weight does not fit.
        """
        check_metrics(self.metrics, problem="multi_label")
        store = self._texts.store(name)
        if name == "train":
            _ = self.weights_of_labels  # its faults come with those of the data
        return store

    def forward(self, model: nn.Module, batch: Batch, progress: Progress) -> Output:
        """The loss of each text."""
        if not model.training:
            return _output(model, batch)
        return _output(model, batch, self.weights_of_labels, gamma=self.focal_gamma)

    def score(self, predictions: Predictions) -> dict[str, float]:
        """``metrics`` by name."""
        return scored(self.metrics, predictions)

    @cached_property
    def weights_of_labels(self) -> tuple[float, ...] | None:
        """How much each label counts in training where it is there; None: 1."""
        return _weights_of_labels(self.positive_weights, self._texts.splits.table("train"))


@dataclass(frozen=True, kw_only=True)
class ImageMultiLabel:
    """Which of several labels an image has: any number of them.

    Args:
        model: A Hub id or a local folder of transformers, ``timm:`` before a name or folder of timm, or ``glyph_vit``.
        data: What to learn from; in Python also a name, or a mapping of splits and columns.
        image_size: Side of the square that the model is given, in pixels; None: as its own configuration says.
        augment: Random views of the training split, as of ``image_classification``. A label of a thing that a crop
            leaves out stays.
        positive_weights: How much a label that is there counts in training, where absent it counts 1: ``none``; what
            ``balanced`` says, absent / present in train; or by label, 1 for those that are left out. Evaluation
            reports the plain loss whatever this is.
        focal_gamma: Power of what the probability of each right decision lacks to 1, by which its term is multiplied
            in training: a focal loss (Lin et al. 2017, arXiv 1708.02002, who take 2); 0: plain.
        metrics: The first is the default of ``metric``.
        weights: ``"scratch"`` takes the checkpoint's shape, and random weights.
        allow_partial: Take a checkpoint that lacks weights of its trunk (transformers only); they start at random.
    """

    name: Literal["image_multi_label"] = "image_multi_label"
    model: str
    data: Data
    image_size: Annotated[int, Ge(1)] | None = None
    augment: Augment = "none"
    positive_weights: PositiveWeights = "none"
    focal_gamma: Annotated[float, Ge(0)] = 0.0
    metrics: tuple[str | External, ...] = ("mean_average_precision", "f1_micro", "f1_macro", "subset_accuracy")
    weights: Literal["pretrained", "scratch"] = "pretrained"
    allow_partial: bool = False

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", as_data(self.data))
        _check_weights(self.positive_weights)

    @property
    def id2label(self) -> dict[int, str]:
        """The labels of the training split by number; a checkpoint that knows the same ones keeps its order."""
        return self._splits.id2label

    def load_model(self) -> LoadedModel:
        """The checkpoint with a head for the labels of the training split."""
        from ..models.loading import Weights, load_image_classifier
        from .pretrained import public_name_of

        loaded = load_image_classifier(
            self._source,
            id2label=self.id2label,
            problem="multi_label",
            image_size=self.image_size,
            weights=Weights(self.weights),
            allow_partial=self.allow_partial,
        )
        return loaded._replace(source=public_name_of(self.model))

    def splits(self) -> tuple[str, ...]:
        """The splits there are."""
        from ..data.sources import splits

        return splits(self.data, task=self.name)

    def load_split(self, name: str) -> ImageStore:
        """The split ``"train"``, ``"validation"`` or ``"test"``; only ``"train"`` is seen in random views.

        Raises:
            DataError: The split does not exist, or does not fit the task.
            ConfigError: A metric or a weight does not fit.
        """
        from ..data.image_store import ImageStore

        check_metrics(self.metrics, problem="multi_label")
        table = self._splits.table(name)
        if name == "train":
            _ = self.weights_of_labels  # its faults come with those of the data
        return ImageStore(table, pixels=self._pixels, augment=self.augment if name == "train" else "none")

    def forward(self, model: nn.Module, batch: Batch, progress: Progress) -> Output:
        """The loss of each image."""
        if not model.training:
            return _output(model, batch)
        return _output(model, batch, self.weights_of_labels, gamma=self.focal_gamma)

    def score(self, predictions: Predictions) -> dict[str, float]:
        """``metrics`` by name."""
        return scored(self.metrics, predictions)

    @cached_property
    def weights_of_labels(self) -> tuple[float, ...] | None:
        """How much each label counts in training where it is there; None: 1."""
        return _weights_of_labels(self.positive_weights, self._splits.table("train"))

    @cached_property
    def _splits(self) -> Splits:
        return Splits(self.data, kind=self.name, checkpoint_labels=self._checkpoint_labels)

    @cached_property
    def _source(self) -> str:
        from .pretrained import source_of

        return source_of(self.model)

    @cached_property
    def _pixels(self) -> Pixels:
        from .pretrained import pixels_of

        return pixels_of(self._source, image_size=self.image_size)

    def _checkpoint_labels(self) -> tuple[str, ...]:
        from .pretrained import image_labels_of

        return image_labels_of(self._source)


def _output(model: nn.Module, batch: Batch, weights: tuple[float, ...] | None = None, *, gamma: float = 0.0) -> Output:
    from ..losses import binary_cross_entropy

    logits = model(batch)
    if "labels" not in batch:
        return Output(None, batch.get("weights"), logits)
    factors = None if weights is None else _factors(weights, logits.device)
    losses = binary_cross_entropy(logits, batch["labels"], positive_weights=factors, gamma=gamma)
    return Output(losses, batch.get("weights"), logits)


@lru_cache(maxsize=8)
def _factors(weights: tuple[float, ...], device: torch.device) -> Tensor:
    """On the device once, (labels,) float64: a copy in every step would make the host wait."""
    import torch

    return torch.tensor(weights, dtype=torch.float64, device=device)


def _weights_of_labels(asked: PositiveWeights, train: Table) -> tuple[float, ...] | None:
    """One factor for each label, in the order of the model's outputs; None where all are 1."""
    names = train.label_names
    if asked == "none":
        return None
    assert names is not None and train.labels is not None
    if asked == "balanced":
        present = train.labels.sum(axis=0)
        found = np.where((present > 0) & (present < len(train)), (len(train) - present) / np.maximum(present, 1), 1.0)
        return tuple(found.tolist())
    assert not isinstance(asked, str)
    for name in asked:
        if name not in names:
            raise ConfigError(
                f"task.positive_weights: {name!r} is no label of this data{nearest(name, names)}; there are "
                f"{listed(names, most=20)}"
            )
    return tuple(float(asked.get(name, 1.0)) for name in names)


def _check_weights(asked: object) -> None:
    words = "expected none, balanced, or numbers above 0 by label: {spam: 5}"
    if isinstance(asked, str) and asked not in ("none", "balanced"):
        raise ValueError(f"positive_weights: got {asked!r}{nearest(asked, ('none', 'balanced'))}; {words}")
    if not isinstance(asked, str) and not (
        isinstance(asked, Mapping) and asked and all(_is_weight(weight) for weight in asked.values())
    ):
        raise ValueError(f"positive_weights: got {asked!r}; {words}")


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
