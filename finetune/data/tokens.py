"""From texts to flat arrays of token ids, by the tokenizer that comes with a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np


class Tokens(NamedTuple):
    """The tokens of all texts, one text after the other."""

    ids: np.ndarray  # (tokens,) int32
    types: np.ndarray | None  # segment of each token, (tokens,) int8; None where the model takes none
    offsets: np.ndarray  # text i is ids[offsets[i]:offsets[i + 1]], (texts + 1,) int64


def takes_types(tokenizer: Any) -> bool:
    """Whether the model is told which of a pair's texts a token belongs to."""
    return "token_type_ids" in tokenizer.model_input_names


def tokenised(chunks: Iterable[Sequence[tuple[str, ...]]], *, tokenizer: Any, max_length: int) -> Tokens:
    """Exactly what the tokenizer's own call gives; of a pair that is too long, the longer text is cut first.

    Args:
        chunks: Texts, or pairs of them, so many at a time that their Python objects take no memory to speak of.
        tokenizer: Of transformers; one of the tokenizers library is asked directly, without a dict of lists.
        max_length: In tokens, special tokens included.
    """
    with_types = takes_types(tokenizer)
    encode = _encoded_directly if is_direct(tokenizer) else _encoded_by_call
    parts = [encode(tokenizer, chunk, max_length, with_types=with_types) for chunk in chunks if chunk]
    lengths = [np.zeros(1, np.int64), *(part[2] for part in parts)]
    types = [np.zeros(0, np.int8), *(part[1] for part in parts)]
    return Tokens(
        ids=np.concatenate([np.zeros(0, np.int32), *(part[0] for part in parts)]),
        types=_or_zeros(np.concatenate(types)) if with_types else None,
        offsets=np.cumsum(np.concatenate(lengths)),
    )


def zeros(count: int) -> np.ndarray:
    """The segments of texts that are no pairs, (count,) int8, which take no memory."""
    return np.broadcast_to(np.zeros((), np.int8), count)


def _or_zeros(types: np.ndarray) -> np.ndarray:
    return types if types.any() else zeros(len(types))


def is_direct(tokenizer: Any) -> bool:
    """Whether the tokenizer's call does nothing but what its backend does."""
    from transformers import PreTrainedTokenizerFast

    kind = type(tokenizer)
    return (
        isinstance(tokenizer, PreTrainedTokenizerFast)
        and kind.__call__ is PreTrainedTokenizerFast.__call__
        and kind._encode_plus is PreTrainedTokenizerFast._encode_plus
        and not hasattr(tokenizer, "_switch_to_input_mode")
    )


def identity(tokenizer: Any, *, max_length: int) -> str | None:
    """All that the tokens of a text depend on, as a text; None where that cannot be told."""
    import tokenizers

    if not is_direct(tokenizer):
        return None
    with _set_up(tokenizer, max_length) as backend:
        try:
            content = backend.to_str()
        except Exception:  # it has a part that is written in Python
            return None
    about = [type(tokenizer).__name__, tokenizers.__version__, tokenizer.split_special_tokens, takes_types(tokenizer)]
    return json.dumps([*about, content])


def _encoded_directly(
    tokenizer: Any, texts: Sequence[tuple[str, ...]], max_length: int, *, with_types: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids and segments of all tokens, (tokens,), and the number of tokens of each text, (texts,)."""
    with _set_up(tokenizer, max_length) as backend:
        encode = getattr(backend, "encode_batch_fast", backend.encode_batch)
        found = encode([text[0] if len(text) == 1 else text for text in texts])
    lengths = np.fromiter(map(len, found), np.int64, count=len(found))
    total = int(lengths.sum())
    ids = np.fromiter(chain.from_iterable(one.ids for one in found), np.int32, count=total)
    types = chain.from_iterable(one.type_ids for one in found) if with_types else ()
    return ids, np.fromiter(types, np.int8, count=total if with_types else 0), lengths


@contextmanager
def _set_up(tokenizer: Any, max_length: int) -> Iterator[Any]:
    """The backend as the tokenizer's own call sets it, and afterwards as it was."""
    backend = tokenizer.backend_tokenizer
    truncation, padding, special = backend.truncation, backend.padding, backend.encode_special_tokens
    backend.enable_truncation(max_length, stride=0, strategy="longest_first", direction=tokenizer.truncation_side)
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    try:
        yield backend
    finally:
        backend.no_truncation() if truncation is None else backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)
        backend.encode_special_tokens = special


def _encoded_by_call(
    tokenizer: Any, texts: Sequence[tuple[str, ...]], max_length: int, *, with_types: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As ``_encoded_directly``, for a tokenizer that is written in Python, or does more than its backend."""
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
    lengths = np.fromiter(map(len, ids), np.int64, count=len(ids))
    types = encoded.get("token_type_ids") or [[0] * len(row) for row in ids]
    flat = (
        np.fromiter(chain.from_iterable(types), np.int8, count=lengths.sum()) if with_types else np.zeros(0, np.int8)
    )
    return np.fromiter(chain.from_iterable(ids), np.int32, count=lengths.sum()), flat, lengths
