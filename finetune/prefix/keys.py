"""What names kept activations: equal only where everything that they were computed from is equal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.store import Draw, Draws, Store
from .views import view_draw

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_CHUNK = 1024  # texts whose ids are hashed at once
_SAMPLED = 16  # images that tell one preparation from another


def entry_key(*parts: Any) -> str:
    """A name for these values, 32 hex digits; they are what JSON can hold."""
    import xxhash

    return xxhash.xxh3_128_hexdigest(json.dumps(parts, sort_keys=True).encode())


def weight_digests(tensors: Iterable[tuple[int, str, Tensor]], *, num_blocks: int) -> list[str]:
    """A digest of the weights below each depth, from 0 (the embeddings) to ``num_blocks``.

    Args:
        tensors: (block, name, weights or buffer), ordered by block; what feeds the trunk has block -1.
        num_blocks: Of the trunk.
    """
    import torch
    import xxhash

    state = xxhash.xxh3_128()
    digests: list[str] = []
    for block, name, tensor in tensors:
        while len(digests) <= block:
            digests.append(state.hexdigest())
        flat = tensor.detach().cpu().contiguous()
        state.update(f"{name} {flat.dtype} {tuple(flat.shape)}".encode())
        state.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return [*digests, *[state.hexdigest()] * (num_blocks + 1 - len(digests))]


def model_facts(model: nn.Module) -> list[str]:
    """The shape of a model, as its library describes it: everything but weights and names of classes."""
    base: Any = model
    base = base.get_base_model() if hasattr(model, "get_base_model") else base
    config: Any = getattr(base, "config", None)
    plain = json.loads(config.to_json_string(use_diff=False)) if hasattr(config, "to_json_string") else {}
    dropped = ("_name_or_path", "id2label", "label2id", "num_labels", "problem_type", "architectures")
    kept = {key: value for key, value in plain.items() if key not in dropped}
    return [type(base).__qualname__, repr(model), json.dumps(kept, sort_keys=True, default=str)]


def content_digest(store: Store, *, views: int, seed: int) -> str:
    """A digest of the inputs that a split gives a model: every token of texts; images by their files.

    An image is told by the fingerprint of its split, and how it is prepared by what a few of them become.

    Args:
        store: The split.
        views: Kept random views of each example; 0: the example as it is.
        seed: Of the run, which draws the views.
    """
    import xxhash

    state = xxhash.xxh3_128(json.dumps([len(store), views, seed if views else 0]).encode())
    if "input_ids" in store.batch([Draw(0, 0, 0)]):
        for at in range(0, len(store), _CHUNK):
            _update(state, store.batch(Draws(np.arange(at, min(at + _CHUNK, len(store))))))
        return state.hexdigest()
    state.update(store.fingerprint.encode())
    places = sorted(set(np.linspace(0, len(store) - 1, _SAMPLED).round().astype(int).tolist()))
    _update(state, store.batch([view_draw(index, 0, seed=seed) if views else Draw(0, 0, index) for index in places]))
    return state.hexdigest()


def _update(state: Any, batch: Mapping[str, torch.Tensor]) -> None:
    for name in sorted(batch):
        if name not in ("labels", "weights", "index"):
            array = batch[name].contiguous().numpy()
            state.update(f"{name} {array.dtype} {array.shape}".encode())
            state.update(np.ascontiguousarray(array).view(np.uint8).data if array.ndim else array.tobytes())
