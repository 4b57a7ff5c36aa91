"""What a head must tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Problem = Literal["classification", "regression", "multi_label", "tagging", "answers"]


class Labels(NamedTuple):
    """The labels of the data, by the index of their logit."""

    names: tuple[str, ...]
    problem: Problem

    @classmethod
    def of(cls, id2label: Mapping[int, str] | None, *, num_labels: int, problem: Problem) -> Labels:
        """From a mapping 0 … n-1 to names; without one the names are those that transformers would make up.

        Raises:
            ValueError: The mapping does not number ``num_labels`` labels from 0.
        """
        given = {int(index): str(name) for index, name in (id2label or {}).items()}
        given = given or {index: f"LABEL_{index}" for index in range(num_labels)}
        if sorted(given) != list(range(num_labels)):
            raise ValueError(f"id2label must number {num_labels} labels from 0; got the indices {sorted(given)}")
        return cls(tuple(given[index] for index in range(num_labels)), problem)

    def other_than(self, count: int) -> str:
        """Why a head of ``count`` outputs is not taken for these labels, where it is not."""
        if self.problem in ("regression", "answers"):
            return "the checkpoint's is for another task"
        if count != len(self.names):
            return f"{count} classes in the checkpoint, {len(self.names)} in the data"
        return "other classes in the checkpoint, or another task"

    @property
    def id2label(self) -> dict[int, str]:
        """As a config of transformers holds them."""
        return dict(enumerate(self.names))
