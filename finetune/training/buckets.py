"""Batches of a few fixed shapes: texts that count for nothing fill a batch up, and see only themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..data.store import Batch

NUM_FILLING = 8  # texts above the batch size: that many share the filling, so that none is longer than 33 tokens
MOST_TOKENS = 8192  # above, a GPU is busy computing, not waiting for the next launch
_FINE, _COARSE, _FINE_UNTIL = 64, 256, 512  # tokens between two buckets
_LEAST_LONGEST = 64
_EACH_TOKEN = ("input_ids", "token_type_ids", "hidden")


def bucket_of(num_tokens: int) -> int:
    """The tokens of the smallest bucket that holds these."""
    step = _FINE if num_tokens <= _FINE_UNTIL else _COARSE
    return -(-num_tokens // step) * step


def longest_of(longest: int) -> int:
    """The power of two, 64 at least, that no text of the bucket exceeds."""
    return max(_LEAST_LONGEST, 1 << (longest - 1).bit_length())


def filled(batch: Batch, *, batch_size: int) -> Batch | None:
    """A batch of texts in one of the fixed shapes; None for what has none.

    The examples stay the first ones, in their order. What fills up has weight 0 and repeats the first token (an id
    that surely exists), label and index.

    Args:
        batch: Flat, on the CPU; ``input_ids``, or ``hidden`` of all tokens.
        batch_size: The most examples there can be.
    """
    if "lengths" not in batch:
        return None
    lengths, inputs = batch["lengths"], batch.get("input_ids", batch.get("hidden"))
    num, num_tokens = len(lengths), int(lengths.sum())
    is_of_tokens = inputs is not None and len(inputs) == num_tokens > num  # else kept first tokens
    if not is_of_tokens or num > batch_size:
        return None
    count = batch_size + NUM_FILLING - num
    size = bucket_of(num_tokens + count)
    if size > MOST_TOKENS:
        return None
    own = np.diff(np.linspace(0, size - num_tokens, count + 1).astype(np.int64))  # at least one token each
    found = {}
    for name, tensor in batch.items():
        more = size - num_tokens if name in _EACH_TOKEN else count
        found[name] = tensor if tensor.ndim == 0 else torch.cat([tensor, tensor[:1].expand(more, *tensor.shape[1:])])
    return {
        **found,
        "lengths": torch.cat([lengths, torch.from_numpy(own)]),
        "weights": torch.cat([batch["weights"], batch["weights"].new_zeros(count)]),
    }


def fixed(batch: Batch) -> Batch:
    """A filled batch with what its lengths say in tensors of fixed shape (see ``encoders.packing.spans_of``)."""
    lengths: np.ndarray = batch["lengths"].numpy()
    ends = np.cumsum(lengths)
    starts = ends - lengths
    return {
        **batch,
        "offsets": torch.from_numpy(np.append(starts, ends[-1])),
        "positions": torch.from_numpy(np.arange(ends[-1]) - np.repeat(starts, lengths)),
        "longest": torch.tensor(longest_of(int(lengths.max()))),
    }


def shape_of(batch: Batch) -> tuple[object, ...]:
    """What batches must have in common for one recording: shapes, and what Python code reads of them."""
    read = {name: int(batch[name]) for name in ("longest", "depth") if name in batch}
    return (tuple(sorted(_form(name, tensor) for name, tensor in batch.items())), tuple(read.items()))


def _form(name: str, tensor: Tensor) -> tuple[str, tuple[int, ...], str]:
    return name, tuple(tensor.shape), str(tensor.dtype)
