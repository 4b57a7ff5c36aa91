"""Texts as one flat array of token ids: tokenised once, padded only to the longest text of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .store import Draw

if TYPE_CHECKING:
    from .store import Batch
    from .table import Table

_CHUNK = 1000  # texts per call of the tokenizer: its dicts of lists never hold the whole split


@dataclass(frozen=True, eq=False)
class TextStore:
    """One split of texts, tokenised; a ``Store``.

    Holds arrays only, so a loader worker that is forked shares them and copies nothing.

    Args:
        table: Where the texts came from.
        ids: Token ids of all texts, one after the other, (tokens,) int32.
        types: Segment of each token, (tokens,) int8; None where the model takes none.
        offsets: Text i is ``ids[offsets[i]:offsets[i + 1]]``, (examples + 1,) int64.
        pad_id: What fills a row of a batch.
        padding_side: ``"right"`` or ``"left"``.
        max_length: Tokens after which texts were cut.
    """

    table: Table
    ids: np.ndarray
    types: np.ndarray | None
    offsets: np.ndarray
    pad_id: int
    padding_side: str
    max_length: int

    @classmethod
    def tokenised(cls, table: Table, *, tokenizer: Any, max_length: int) -> TextStore:
        """Tokenise a split; of a pair that is too long, the longer text is cut first.

        Args:
            table: One text, or two, in each row.
            tokenizer: Of transformers.
            max_length: In tokens, special tokens included.
        """
        texts = table.texts()
        chunks = [_tokens(tokenizer, texts[at : at + _CHUNK], max_length) for at in range(0, len(texts), _CHUNK)]
        lengths = np.concatenate([np.zeros(1, np.int64), *(chunk[2] for chunk in chunks)])
        has_types = "token_type_ids" in tokenizer.model_input_names
        return cls(
            table=table,
            ids=np.concatenate([np.zeros(0, np.int32), *(chunk[0] for chunk in chunks)]),
            types=np.concatenate([np.zeros(0, np.int8), *(chunk[1] for chunk in chunks)]) if has_types else None,
            offsets=np.cumsum(lengths),
            pad_id=tokenizer.pad_token_id or 0,  # a tokenizer without one: masked anyway
            padding_side=tokenizer.padding_side,
            max_length=max_length,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each text after it was cut, (examples,) int32."""
        return np.diff(self.offsets).astype(np.int32)

    @property
    def labels(self) -> np.ndarray | None:
        """Classes (int64) or targets (float32), (examples,); None for a split without labels."""
        return self.table.labels

    @property
    def num_full(self) -> int:
        """How many texts have ``max_length`` tokens: those that were cut, and the few that just fit."""
        return int((self.lengths == self.max_length).sum())

    @property
    def fingerprint(self) -> str:
        """Of the data, before tokenisation."""
        return self.table.fingerprint

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
        """``input_ids``, ``attention_mask``, ``token_type_ids`` where the model takes them, ``labels``, ``index``."""
        import torch

        rows = np.fromiter((draw.index for draw in draws), np.int64, count=len(draws))
        starts, ends = self.offsets[rows], self.offsets[rows + 1]
        lengths = ends - starts
        width = int(lengths.max(initial=1))
        at = np.arange(width)
        filled = at >= width - lengths[:, None] if self.padding_side == "left" else at < lengths[:, None]
        spans = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
        arrays = {
            "input_ids": _padded(self.ids, spans, filled, self.pad_id),
            "attention_mask": filled.astype(np.int64),
            "index": rows,
        }
        if self.types is not None:
            arrays["token_type_ids"] = _padded(self.types, spans, filled, 0)
        if self.labels is not None:
            arrays["labels"] = self.labels[rows]
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _padded(flat: np.ndarray, spans: Sequence[slice], filled: np.ndarray, padding: int) -> np.ndarray:
    """Rows of a batch, (batch, width) int64; ``filled`` is where the spans go, row after row."""
    rows = np.full(filled.shape, padding, np.int64)
    if spans:
        rows[filled] = np.concatenate([flat[span] for span in spans])
    return rows


def _tokens(
    tokenizer: Any, texts: Sequence[tuple[str, ...]], max_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids and segments of all tokens, (tokens,), and the number of tokens of each text, (texts,)."""
    columns = [list(column) for column in zip(*texts, strict=True)]  # one column, or two for pairs
    encoded = tokenizer(
        *columns,
        truncation="longest_first",
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
        verbose=False,
    )
    ids = encoded["input_ids"]
    types = encoded.get("token_type_ids") or [[0] * len(row) for row in ids]
    return (
        np.concatenate([np.asarray(row, np.int32) for row in ids]),
        np.concatenate([np.asarray(row, np.int8) for row in types]),
        np.asarray([len(row) for row in ids], np.int64),
    )
