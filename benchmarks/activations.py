"""What one update keeps for its backward pass, by way of computing it: ``python -m benchmarks.activations``.

Bytes of tensors that autograd saves, counted and not timed, so a busy machine does not matter. Weights are left
out; 32 examples, lengths of SST-2 (the same for all rows), pictures of 224 pixels; random weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from finetune.encoders import Forward
from finetune.speed import PLAIN, Speed

_EXAMPLES = 32
_SHAPES = {"MiniLM-L6": (384, 6, 12, 1536), "BERT-base": (768, 12, 12, 3072)}
_WAYS = {
    "plain (padded)": (PLAIN, False),
    "packed": (Speed(first_token="off"), False),
    "packed, first token": (Speed(), False),
    "packed, first token, recomputed": (Speed(), True),
}


def texts() -> dict[str, torch.Tensor]:
    """A flat batch with lengths drawn from SST-2."""
    found = json.loads(Path(__file__).with_name("token_lengths.json").read_text())
    histogram = found.get("sets", found)["sst2"]["histogram"]
    counts = np.array(list(histogram.values()), np.float64)
    rng = np.random.default_rng(0)
    lengths = np.sort(rng.choice([int(size) for size in histogram], _EXAMPLES, p=counts / counts.sum()))[::-1].copy()
    return {
        "input_ids": torch.from_numpy(rng.integers(5, 30_000, lengths.sum())),
        "lengths": torch.from_numpy(lengths),
        "index": torch.arange(_EXAMPLES),
    }


def models() -> Iterator[tuple[str, nn.Module, dict[str, torch.Tensor]]]:
    """Name, model and batch."""
    import timm
    from transformers import BertConfig, BertForSequenceClassification

    for name, (width, layers, heads, inner) in _SHAPES.items():
        shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
        yield name, BertForSequenceClassification(BertConfig(**shape, intermediate_size=inner)), texts()
    images = {"pixel_values": torch.randn(_EXAMPLES, 3, 224, 224), "index": torch.arange(_EXAMPLES)}
    yield "ViT-S/16", timm.create_model("vit_small_patch16_224", num_classes=10), images


def kept(forward: Forward, batch: dict[str, torch.Tensor]) -> int:
    """Bytes that are saved for backward, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in forward.parameters()}
    sizes: dict[int, int] = {}
    held = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            held.append(storage)  # else its address may be given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward(batch)
    return sum(sizes.values())


def main() -> None:
    """Print the table, in MB."""
    print("| model | what trains | " + " | ".join(_WAYS) + " |\n|---|---|" + "---|" * len(_WAYS))
    for name, model, batch in models():
        for trained in ("everything", "the last two blocks and the head"):
            cells = []
            for speed, recomputes in _WAYS.values():
                forward = Forward(model.train(), speed)
                forward.recomputes = recomputes
                everything = trained == "everything"
                model.requires_grad_(everything)
                blocks = Forward(model).family.blocks  # type: ignore[union-attr]
                for part in () if everything else (*list(blocks)[-2:], *_head(model)):
                    part.requires_grad_()
                cells.append(f"{kept(forward, batch) / 1e6:.1f}")
            print(f"| {name} | {trained} | " + " | ".join(cells) + " |")


def _head(model: nn.Module) -> list[nn.Module]:
    return [part for name, part in model.named_modules() if name in ("classifier", "bert.pooler", "norm", "head")]


if __name__ == "__main__":
    main()
