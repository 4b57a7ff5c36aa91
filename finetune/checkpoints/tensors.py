"""Tensors as safetensors bytes, piece by piece, so that saving copies no weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MOST_HEADER_BYTES = 100 * 2**20  # what the safetensors library reads at most
ALIGNMENT = 8
TYPE_NAMES = {
    "torch.bool": "BOOL",
    "torch.bfloat16": "BF16",
    **{f"torch.float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{
        f"torch.{kind}{bits}": f"{name}{bits}"
        for kind, name in (("int", "I"), ("uint", "U"))
        for bits in (8, 16, 32, 64)
    },
}


def serialised(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The pieces of a safetensors file: length, header, then each tensor's bytes.

    The format is documented at https://github.com/huggingface/safetensors#format; the order (wide items
    first, then by name) keeps every tensor aligned, as the library's own writer does.
    ``safetensors.torch.save`` gives the same file but holds it in memory twice.

    Raises:
        TypeError: Not a dense tensor on the CPU, or of a type that the format lacks; names the tensor.
    """
    assert sys.byteorder == "little", "safetensors are little-endian"
    header: dict[str, dict[str, object]] = {}
    names = sorted(tensors, key=lambda name: (-_item_size(name, tensors[name]), name))
    position = 0
    for name in names:
        tensor = tensors[name]
        end = position + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": TYPE_NAMES[str(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    if len(text) > MOST_HEADER_BYTES:
        raise TypeError(f"{len(tensors)} tensors need a header of {len(text)} bytes, at most {MOST_HEADER_BYTES}")
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        piece = raw_bytes(tensors[name])
        if piece:
            yield piece


def deserialised(data: bytes) -> dict[str, Tensor]:
    """The tensors in ``data``, read by the safetensors library.

    Raises:
        ValueError: Not a safetensors file, or a header that lies about types, shapes or offsets.
    """
    import safetensors
    from safetensors.torch import load

    try:
        return load(data)
    except (safetensors.SafetensorError, KeyError, RuntimeError, AssertionError) as fault:
        raise ValueError(f"not readable as safetensors ({fault})") from fault


def _item_size(name: str, tensor: Tensor) -> int:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name!r} is a {type(tensor).__name__}, expected a tensor")
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        raise TypeError(f"{name!r} is a {tensor.layout} tensor on {tensor.device}, expected a dense one on the CPU")
    if str(tensor.dtype) not in TYPE_NAMES:
        raise TypeError(f"{name!r} has the type {tensor.dtype}, which safetensors cannot hold")
    return tensor.element_size()


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU, item after item; its own memory where it lies so already."""
    import torch

    # A tensor without dimensions cannot change its item size, hence the flat view first.
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
