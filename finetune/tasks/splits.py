"""The tables of a task's data: each read once, all with the classes of the training split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

from ..choices import listed, nearest
from ..data.spec import Data, Split
from ..errors import DataError

if TYPE_CHECKING:
    from ..data.table import Table

Kind = Literal[
    "text_classification",
    "text_regression",
    "text_multi_label",
    "image_classification",
    "image_multi_label",
    "masked_language",
]


def as_data(value: Data | str | Mapping[str, Any]) -> Data:
    """The data as a user may write it in Python: a preset or Hub id, or a mapping of splits and columns.

    Raises:
        ValueError: A key that ``Data`` does not have.
    """
    if isinstance(value, Data):
        return value
    if isinstance(value, str):
        return Data(name=value)
    known = [entry.name for entry in fields(Data)]
    for key in value:
        if key not in known:
            raise ValueError(f"data: {key!r} is not a key of it{nearest(key, known)}; there are {listed(known)}")
    return Data(**value)


@dataclass(frozen=True)
class Splits:
    """Reads the splits of one task.

    Args:
        data: Where they are.
        kind: What their labels must be.
        checkpoint_labels: The classes that the checkpoint's head knows, in its order; asked for only when
            the data has been read.
    """

    data: Data
    kind: Kind
    checkpoint_labels: Callable[[], Sequence[str]] = tuple
    _tables: dict[str, Table] = field(default_factory=dict, repr=False, compare=False)

    def table(self, name: str) -> Table:
        """The split ``"train"``, ``"validation"`` or ``"test"``.

        Raises:
            DataError: The split does not exist, or does not fit the task.
        """
        from ..data.sources import read

        train = self._train
        if name == "train":
            return train
        if name not in self._tables:
            split = cast(Split, name)
            self._tables[name] = read(self.data, split, task=self.kind, label_names=self.label_names, train=train)
        return self._tables[name]

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The classes, in the order of the model's outputs; None for numbers."""
        return self._train.label_names

    @property
    def id2label(self) -> dict[int, str]:
        """The classes by number; none for numbers."""
        return dict(enumerate(self.label_names or ()))

    @cached_property
    def _train(self) -> Table:
        from ..data.sources import read_train

        parts = read_train(self.data, task=self.kind)
        table = parts["train"]
        if table.labels is None and self.kind != "masked_language":
            raise DataError(
                "task.data: the training split has no labels. Name their column: task.data.label=<column>."
            )
        if table.label_names is not None:
            order = tuple(self.checkpoint_labels())
            if order != table.label_names and sorted(order) == sorted(table.label_names):
                # The same classes in another order: in the checkpoint's, its head can go on where it was.
                parts = read_train(self.data, task=self.kind, label_names=order)
        self._tables.update({name: part for name, part in parts.items() if name != "train"})
        return parts["train"]
