"""Texts as one flat array of token ids: tokenised once, kept for the next run, and never padded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..cached_arrays import CacheUnavailable
from .store import Draw, indices_of
from .tokens import Tokens, identity, takes_types, tokenised, zeros
from .truncation import TokenizerTruncation, Truncation

if TYPE_CHECKING:
    from ..cached_arrays import ArrayCache
    from .rows import Fault
    from .store import Batch
    from .table import Table

_CHUNK = 1000  # texts per call of the tokenizer
_SMALLEST = 2000  # texts; fewer are tokenised in less time than a run takes to start
_FORMAT = 2


@dataclass(frozen=True, eq=False)
class TextStore:
    """One split of texts, tokenised; a ``Store``.

    Holds arrays only, some of them maps of a file, so a loader worker that is forked shares them and copies nothing.

    Args:
        table: Where the texts came from.
        ids: Token ids of all texts, one after the other, (tokens,) int32.
        types: Segment of each token, (tokens,) int8; None where the model takes none.
        offsets: Text i is ``ids[offsets[i]:offsets[i + 1]]``, (examples + 1,) int64.
        left_out: Tokens of each text that were cut, (examples,) int32.
        max_length: Tokens that a text may have, special tokens included.
        kept: What became of the token cache, for the plan and the log.
    """

    varies: ClassVar[bool] = False

    table: Table
    ids: np.ndarray
    types: np.ndarray | None
    offsets: np.ndarray
    left_out: np.ndarray
    max_length: int
    kept: str = "off"

    @classmethod
    def tokenised(
        cls,
        table: Table,
        *,
        tokenizer: Any,
        max_length: int,
        truncation: Truncation = TokenizerTruncation(),  # noqa: B008 (frozen)
        cache: ArrayCache | None = None,
    ) -> TextStore:
        """Tokenise a split, or find it tokenised; of a pair that is too long, the longer text is cut first.

        Args:
            table: One text, or two, in each row.
            tokenizer: Of transformers.
            max_length: In tokens, special tokens included.
            truncation: Which tokens stay of a text that is longer.
            cache: Where the tokens are kept for the next run that needs the same; None: nowhere.
        """
        tokens, kept = _tokens(table, tokenizer, max_length, truncation, cache)
        ids, types, offsets, left_out = (None if array is None else np.asarray(array) for array in tokens)
        assert ids is not None and offsets is not None and left_out is not None
        return cls(
            table=table, ids=ids, types=types, offsets=offsets, left_out=left_out, max_length=max_length, kept=kept
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each text after it was cut, (examples,) int32."""
        return np.diff(self.offsets).astype(np.int32)

    @property
    def labels(self) -> np.ndarray | None:
        """Classes (int64) or targets (float32), (examples,), or which labels (bool); None for a split without any."""
        return self.table.labels

    @property
    def num_cut(self) -> int:
        """How many texts are longer than ``max_length``."""
        return int((self.left_out > 0).sum())

    @property
    def share_left_out(self) -> float:
        """Of all tokens that the texts have, those that were cut."""
        gone = int(self.left_out.sum(dtype=np.int64))
        return gone / max(1, gone + len(self.ids))

    @property
    def fingerprint(self) -> str:
        """Of the data, before tokenisation."""
        return self.table.fingerprint

    @property
    def skipped(self) -> tuple[Fault, ...]:
        """Rows that ``bad_rows: skip`` left out."""
        return self.table.skipped

    def column(self, name: str) -> np.ndarray:
        """A column of the source by name, (examples,).

        Raises:
            DataError: No such column; names those there are.
        """
        return self.table.column(name)

    def where(self, index: int) -> str:
        """File and row of an example, for messages."""
        return self.table.where(index)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Flat: ``input_ids`` (tokens,), text after text in the order of the draws, and ``lengths`` (examples,).

        Also ``token_type_ids`` (tokens,) where the model takes them, ``labels`` and ``index`` (examples,).
        """
        import torch

        rows = indices_of(draws)
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        ends = lengths.cumsum()
        at = np.arange(ends[-1] if len(ends) else 0)
        at += (starts - ends + lengths).repeat(lengths)
        arrays = {"input_ids": self.ids[at].astype(np.int64), "lengths": lengths, "index": rows}
        if self.types is not None:
            arrays["token_type_ids"] = self.types[at].astype(np.int64)
        if self.labels is not None:
            arrays["labels"] = self.labels[rows]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _tokens(
    table: Table, tokenizer: Any, max_length: int, truncation: Truncation, cache: ArrayCache | None
) -> tuple[Tokens, str]:
    """The tokens of a split, and where they are kept."""

    def made() -> Tokens:
        chunks = table.text_chunks(_CHUNK)
        return tokenised(chunks, tokenizer=tokenizer, max_length=max_length, truncation=truncation)

    if cache is None:
        return made(), "off"
    if len(table) < _SMALLEST:
        return made(), f"not kept: {len(table)} texts, fewer than {_SMALLEST}"
    about = identity(tokenizer, max_length=max_length, truncation=truncation)
    if about is None:
        return made(), "not kept: this tokenizer does not tell all that its tokens depend on"
    key = _key(table, about)
    if (found := cache.find(key)) is not None:
        types = found.get("types", zeros(len(found["ids"]))) if takes_types(tokenizer) else None
        return Tokens(found["ids"], types, found["offsets"], found["left_out"]), f"read from {cache.folder}"
    tokens = made()
    try:
        return _kept(tokens, key, cache), f"written to {cache.folder}"
    except CacheUnavailable as reason:
        warnings.warn(f"tokens are not kept for the next run: {reason}", stacklevel=4)
        return tokens, f"not kept: {reason}"


def _key(table: Table, about: str) -> str:
    import xxhash

    parts = (str(_FORMAT), table.fingerprint, repr(table.text), about)
    return "tokens-" + xxhash.xxh3_128_hexdigest("\n".join(parts).encode())


def _kept(tokens: Tokens, key: str, cache: ArrayCache) -> Tokens:
    """The same tokens as maps of a new entry; segments that are all zero are not written."""
    arrays = {"ids": tokens.ids, "offsets": tokens.offsets, "left_out": tokens.left_out}
    if tokens.types is not None and tokens.types.strides != (0,):
        arrays["types"] = tokens.types
    draft = cache.create(key, {name: (array.shape, array.dtype) for name, array in arrays.items()})
    for name, array in arrays.items():
        draft.arrays[name][...] = array
    found = draft.commit()
    return Tokens(found["ids"], found.get("types", tokens.types), found["offsets"], found["left_out"])
