"""Sentences as one flat array of tokens, with the place of every word in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from .store import Draw, indices_of
from .tagged import Sentences
from .word_tokens import tokenised_words

if TYPE_CHECKING:
    from .rows import Fault
    from .store import Batch

Labelled = Literal["first", "all"]


class Words(NamedTuple):
    """All words of a split, also those that the model does not see."""

    offsets: np.ndarray  # sentence i has the words offsets[i] to offsets[i + 1], (sentences + 1,) int64
    tags: np.ndarray | None  # (words,) int64; None where the split has none
    items: np.ndarray  # the item with a word's first token, (words,) int64; -1 for a word without tokens


class NotSeen(NamedTuple):
    """Words that the model does not see."""

    cut: int  # behind ``max_length``
    sentences: int  # that were cut
    tokenless: int  # of which the tokenizer makes nothing


@dataclass(frozen=True, eq=False)
class WordStore:
    """One split of sentences, tokenised; a ``Store``.

    Its items are tokens with a tag: the first token of each word, or all of them. Holds arrays only, so a loader
    worker that is forked shares them and copies nothing.

    Args:
        sentences: Where they came from.
        ids: Token ids of all sentences, one after the other, (tokens,) int32.
        types: Segment of each token, (tokens,) int8; None where the model takes none.
        offsets: Sentence i is ``ids[offsets[i]:offsets[i + 1]]``, (sentences + 1,) int64.
        places: Tokens that are items, ascending, (items,) int64.
        owners: The word of each item, (items,) int64.
        left_out: Tokens of each sentence that were cut, (sentences,) int64.
        has_token: Whether the tokenizer makes anything of a word, (words,) bool.
        max_length: Tokens after which sentences were cut.
    """

    varies: ClassVar[bool] = False
    labels: ClassVar[None] = None  # none of whole sentences

    sentences: Sentences
    ids: np.ndarray
    types: np.ndarray | None
    offsets: np.ndarray
    places: np.ndarray
    owners: np.ndarray
    left_out: np.ndarray
    has_token: np.ndarray
    max_length: int

    @classmethod
    def tokenised(cls, sentences: Sentences, *, tokenizer: Any, max_length: int, labelled: Labelled) -> WordStore:
        """Tokenise a split.

        Args:
            sentences: Of the split.
            tokenizer: Of transformers, fast and ``spaced``.
            max_length: In tokens, special tokens included.
            labelled: Which tokens of a word have its tag.
        """
        tokens = tokenised_words(sentences.words(), tokenizer=tokenizer, max_length=max_length)
        is_item = tokens.owners >= 0
        if labelled == "first":
            is_item[1:] &= tokens.owners[1:] != tokens.owners[:-1]
        places = np.flatnonzero(is_item)
        return cls(
            sentences=sentences,
            ids=tokens.ids,
            types=tokens.types,
            offsets=tokens.offsets,
            places=places,
            owners=tokens.owners[places],
            left_out=tokens.left_out,
            has_token=tokens.has_token,
            max_length=max_length,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each sentence after it was cut, (sentences,) int32."""
        return np.diff(self.offsets).astype(np.int32)

    @property
    def fingerprint(self) -> str:
        """Of the data, before tokenisation."""
        return self.sentences.fingerprint

    @cached_property
    def words(self) -> Words:
        """All words, and where the model sees them."""
        items = np.full(int(self.sentences.offsets[-1]), -1, np.int64)
        seen, first = np.unique(self.owners, return_index=True)
        items[seen] = first
        return Words(self.sentences.offsets, self.sentences.tags, items)

    @cached_property
    def not_seen(self) -> NotSeen:
        """How many words the model does not see, and why."""
        is_cut = (self.words.items < 0) & self.has_token
        sentences = np.searchsorted(self.sentences.offsets, np.flatnonzero(is_cut), side="right")
        return NotSeen(int(is_cut.sum()), len(np.unique(sentences)), int((~self.has_token).sum()))

    @property
    def num_cut(self) -> int:
        """How many sentences have more tokens than ``max_length``."""
        return int((self.left_out > 0).sum())

    @property
    def share_left_out(self) -> float:
        """Of all tokens, those that were cut."""
        gone = int(self.left_out.sum())
        return gone / max(1, gone + len(self.ids))

    @property
    def skipped(self) -> tuple[Fault, ...]:
        """Rows that ``bad_rows: skip`` left out."""
        return self.sentences.table.skipped

    def column(self, name: str) -> np.ndarray:
        """A column of the source by name, (sentences,).

        Raises:
            DataError: No such column; names those there are.
        """
        return self.sentences.table.column(name)

    def where(self, index: int) -> str:
        """File and line of a sentence, for messages."""
        return self.sentences.table.where(index)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Flat: ``input_ids`` (tokens,), sentence after sentence in the order of the draws, and ``lengths``.

        Also ``token_type_ids`` (tokens,) where the model takes them, ``index`` (sentences,), and ``targets``.
        """
        import torch

        rows = indices_of(draws)
        at, lengths = ragged(self.offsets, rows)
        arrays = {"input_ids": self.ids[at].astype(np.int64), "lengths": lengths, "index": rows}
        if self.types is not None:
            arrays["token_type_ids"] = self.types[at].astype(np.int64)
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | self.targets(draws)

    def targets(self, draws: Sequence[Draw]) -> Batch:
        """What a batch has beside its inputs.

        ``wanted`` (items,) are the places of the items in the flat batch, ``counts`` (sentences,) how many each
        sentence has, ``labels`` (items,) their tags, where there are any.
        """
        import torch

        rows = indices_of(draws)
        at, counts = ragged(self._item_offsets, rows)
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        moved = np.cumsum(lengths) - lengths - self.offsets[rows]  # from the split's tokens to the batch's
        arrays = {"wanted": self.places[at] + np.repeat(moved, counts), "counts": counts}
        if self.sentences.tags is not None:
            arrays["labels"] = self.sentences.tags[self.owners[at]]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    @cached_property
    def _item_offsets(self) -> np.ndarray:
        """Sentence i has the items from i to i + 1 of these, (sentences + 1,)."""
        return np.searchsorted(self.places, self.offsets)


def ragged(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the elements of these rows are, row after row, (elements,), and how many each has, (rows,)."""
    starts = offsets[rows]
    counts = offsets[rows + 1] - starts
    ends = np.cumsum(counts)
    at = np.arange(ends[-1] if len(ends) else 0)
    at += np.repeat(starts - ends + counts, counts)
    return at, counts
