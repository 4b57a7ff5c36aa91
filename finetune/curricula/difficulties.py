"""What makes an example difficult, as a configuration says it; higher is harder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

# What a word means; any other word is a column of the training data.
WORDS = {
    "length": "length in tokens",
    "rarity": "rarity of its words",
    "tf_idf": "mean tf-idf of its words",
    "edge_density": "share of edges in the image",
    "entropy": "entropy of the image's grey levels",
    "loss": "loss of the starting model",
}

Measure = Literal["confidence", "variability", "correctness", "forgetting"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A numeric column of the training data; for one whose name is also a word for something else.

    Args:
        column: Its name.
    """

    name: Literal["column"] = "column"
    column: str

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class TeacherLoss:
    """The loss of another model, which was fine-tuned on the same classes (Hacohen & Weinshall 2019).

    The losses of the starting model say little where its head is new; those of a trained one do not have that fault.

    Args:
        model: A Hub id or a folder of a model, or a run folder, of which its ``model/`` is taken.
    """

    name: Literal["teacher"] = "teacher"
    model: str

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class DataMapScore:
    """What an earlier run on the same data noted of each example (Swayamdipta et al. 2020, arXiv 2009.10795).

    Args:
        run: The run folder, with ``data_map.safetensors``.
        measure: ``confidence`` (mean probability of the right class over the epochs; low is hard), ``variability``
            (its standard deviation; high is hard), ``correctness`` (share of epochs in which it was right; low is
            hard) or ``forgetting`` (how often it was right and then wrong; high is hard).
    """

    name: Literal["data_map"] = "data_map"
    run: str
    measure: Measure = "confidence"

    __pydantic_config__ = {"extra": "forbid"}


def described(difficulty: Any) -> str:
    """A difficulty in words, for the plan, the log and messages."""
    if isinstance(difficulty, TeacherLoss):
        return f"loss of the teacher {difficulty.model}"
    if isinstance(difficulty, DataMapScore):
        return f"{difficulty.measure} in the data map of {difficulty.run}"
    if isinstance(difficulty, str):
        return WORDS.get(difficulty, f"column {difficulty!r}")
    if isinstance(difficulty, Column):
        return f"column {difficulty.column!r}"
    return f"what {getattr(difficulty, '__qualname__', type(difficulty).__qualname__)} gives"


def asks_a_model(difficulty: Any) -> bool:
    """Whether a forward over the training split is needed."""
    return difficulty == "loss" or isinstance(difficulty, TeacherLoss)


def is_from_the_data(difficulty: Any) -> bool:
    """Whether equal data gives equal scores, so that no checkpoint has to keep them."""
    return isinstance(difficulty, Column) or (isinstance(difficulty, str) and difficulty != "loss")
