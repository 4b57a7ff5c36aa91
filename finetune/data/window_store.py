"""Questions with their texts as windows of tokens: a long text is read in several that overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ..errors import DataError, ModelError
from .questions import Answer, Questions
from .store import Draw, indices_of
from .tokens import takes_types

if TYPE_CHECKING:
    from .rows import Fault
    from .store import Batch

_CHUNK = 256  # questions per call of the tokenizer
NULL = 0  # the place in a window that says that the answer is not in it: the class token's


class Windows(NamedTuple):
    """What the logits of a split belong to."""

    offsets: np.ndarray  # window i has the tokens offsets[i] to offsets[i + 1], (windows + 1,) int64
    characters: np.ndarray  # of each token in its text, from and to, (tokens, 2) int32; -1 for what is not text
    owners: np.ndarray  # the question of each window, ascending, (windows,) int64
    questions: Questions


@dataclass(frozen=True, eq=False)
class WindowStore:
    """One split; a ``Store`` whose examples are windows.

    Args:
        questions: Where they came from.
        ids: Token ids of all windows, one after the other, (tokens,) int32.
        types: Segment of each token, (tokens,) int8; None where the model takes none.
        words: Where windows and their tokens stand.
        labels: The first and the last token of the answer, counted in the window, (windows, 2) int64; ``NULL`` twice
            where it is not all in the window. None where the split has no answers.
    """

    varies: ClassVar[bool] = False

    questions: Questions
    ids: np.ndarray
    types: np.ndarray | None
    words: Windows
    labels: np.ndarray | None

    @classmethod
    def tokenised(cls, questions: Questions, *, tokenizer: Any, max_length: int, overlap: int) -> WindowStore:
        """Tokenise a split.

        Args:
            questions: Of the split.
            tokenizer: Of transformers, fast.
            max_length: Of a window, in tokens, the question and special tokens included.
            overlap: Tokens of the text that neighbouring windows share.

        Raises:
            DataError: A question that leaves no room for its text.
            ModelError: The tokenizer puts its class token elsewhere than first.
        """
        parts = [
            part
            for start in range(0, len(questions), _CHUNK)
            for part in _windows(questions, start, tokenizer=tokenizer, max_length=max_length, overlap=overlap)
        ]
        if any(part.ids[NULL] != tokenizer.cls_token_id for part in parts):
            raise ModelError(
                "task.model: question_answering needs a tokenizer that begins each input with its class token."
            )
        lengths = [len(part.ids) for part in parts]
        characters = np.concatenate([part.characters for part in parts])
        windows = Windows(
            offsets=np.cumsum([0, *lengths], dtype=np.int64),
            characters=characters,
            owners=np.array([part.owner for part in parts], np.int64),
            questions=questions,
        )
        labels = None
        if questions.answers is not None:
            labels = np.array([place(part.characters, questions.answers[part.owner]) for part in parts], np.int64)
        return cls(
            questions=questions,
            ids=np.concatenate([part.ids for part in parts]),
            types=np.concatenate([part.types for part in parts]) if takes_types(tokenizer) else None,
            words=windows,
            labels=labels,
        )

    def __len__(self) -> int:
        return len(self.words.owners)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each window, (windows,) int32."""
        return np.diff(self.words.offsets).astype(np.int32)

    @cached_property
    def fingerprint(self) -> str:
        """Of the data, and of how many windows it makes."""
        return f"{self.questions.fingerprint}-{len(self)}"

    @property
    def skipped(self) -> tuple[Fault, ...]:
        """Rows that ``bad_rows: skip`` left out."""
        return self.questions.table.skipped

    def column(self, name: str) -> np.ndarray:
        """A column of the source by name, for each window, (windows,).

        Raises:
            DataError: No such column; names those there are.
        """
        return self.questions.table.column(name)[self.words.owners]

    def where(self, index: int) -> str:
        """File and row of the question of a window, for messages."""
        return self.questions.table.where(int(self.words.owners[index]))

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Flat: ``input_ids`` (tokens,), window after window in the order of the draws, and ``lengths`` (windows,).

        Also ``token_type_ids`` (tokens,) where the model takes them, ``index`` (windows,), ``labels`` (windows, 2).
        """
        import torch

        rows = indices_of(draws)
        starts = self.words.offsets[rows]
        lengths = self.words.offsets[rows + 1] - starts
        ends = lengths.cumsum()
        at = np.arange(ends[-1] if len(ends) else 0)
        at += (starts - ends + lengths).repeat(lengths)
        arrays = {"input_ids": self.ids[at].astype(np.int64), "lengths": lengths, "index": rows}
        if self.types is not None:
            arrays["token_type_ids"] = self.types[at].astype(np.int64)
        if self.labels is not None:
            arrays["labels"] = self.labels[rows]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


class _Window(NamedTuple):
    owner: int
    ids: np.ndarray  # (tokens,) int32
    types: np.ndarray  # (tokens,) int8
    characters: np.ndarray  # (tokens, 2) int32


def place(characters: np.ndarray, answers: Sequence[Answer]) -> tuple[int, int]:
    """The first and the last token of the first answer in a window; ``NULL`` twice where it is not all there.

    Args:
        characters: Of each token in the text, (tokens, 2); -1 for what is not text.
        answers: Of the question.
    """
    inside = np.flatnonzero(characters[:, 0] >= 0)
    if not answers or not len(inside):
        return NULL, NULL
    start, end = answers[0].start, answers[0].start + len(answers[0].text)
    starts, ends = characters[inside].T
    if start < starts[0] or end > ends[-1]:
        return NULL, NULL
    first = np.searchsorted(ends, start, side="right")  # the first token that ends behind the answer's start
    last = np.searchsorted(starts, end, side="left") - 1  # the last one that starts before its end
    return (int(inside[first]), int(inside[last])) if first <= last else (NULL, NULL)


def _windows(questions: Questions, start: int, *, tokenizer: Any, max_length: int, overlap: int) -> Iterator[_Window]:
    texts = questions.table.subset(np.arange(start, min(start + _CHUNK, len(questions)))).texts()
    asked = [question.strip() for question, _ in texts]
    _check_room(questions, asked, start, tokenizer=tokenizer, max_length=max_length, overlap=overlap)
    found = tokenizer(
        asked,
        [context for _, context in texts],
        truncation="only_second",
        max_length=max_length,
        stride=overlap,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
        padding=False,
        verbose=False,
    )
    for number, owner in enumerate(found["overflow_to_sample_mapping"]):
        characters = np.array(found["offset_mapping"][number], np.int32).reshape(-1, 2)
        is_text = np.array([part == 1 for part in found.sequence_ids(number)])
        # a token without characters (a mark that the tokenizer sets before a word) is no place for an answer
        characters[~is_text | (characters[:, 0] == characters[:, 1])] = -1
        ids = np.array(found["input_ids"][number], np.int32)
        yield _Window(start + owner, ids, np.array(found["token_type_ids"][number], np.int8), characters)


def _check_room(
    questions: Questions, asked: Sequence[str], start: int, *, tokenizer: Any, max_length: int, overlap: int
) -> None:
    lengths = [len(ids) for ids in tokenizer(list(asked), add_special_tokens=False, verbose=False)["input_ids"]]
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    for number, length in enumerate(lengths):
        if room - length <= overlap:
            raise DataError(
                f"{questions.table.where(start + number)}: the question has {length} tokens, and beside them "
                f"task.max_length: {max_length} leaves {max(0, room - length)} to the text, no more than "
                f"task.overlap: {overlap}. Make windows longer, or their overlap shorter."
            )
