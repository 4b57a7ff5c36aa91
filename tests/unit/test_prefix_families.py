"""Going on from kept activations equals running the whole model: logits and gradients, at every depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune.data.store import Draws, indices_of
from finetune.encoders import Forward
from finetune.layers import layer_groups
from finetune.prefix.planning import row_shapes
from finetune.prefix.sizes import Rows
from finetune.prefix.source import Source
from finetune.speed import Speed
from tests import tiny_models
from tests.runs import without_dropout

FAMILIES = "bert roberta xlm-roberta distilbert electra modernbert vit deit dinov2 timm-vit timm-deit".split()


class Split:
    """The batch of a tiny model as a split, flat where it is text, and longest last."""

    varies = False

    def __init__(self, family):
        self.whole = tiny_models.batch(family, size=5)
        self.labels = np.array([0, 1, 2, 0, 1])
        mask = self.whole.get("attention_mask")
        self.lengths = np.ones(5, np.int32) if mask is None else mask.sum(1).numpy().astype(np.int32)

    def __len__(self):
        return 5

    def batch(self, draws):
        rows = indices_of(draws)
        found = {"index": torch.from_numpy(rows), "labels": torch.from_numpy(self.labels[rows])}
        if "pixel_values" in self.whole:
            return {**found, "pixel_values": self.whole["pixel_values"][rows].double()}
        texts = [self.whole["input_ids"][row, : self.lengths[row]] for row in rows]
        return {
            **found,
            "input_ids": torch.cat(texts),
            "lengths": torch.from_numpy(self.lengths[rows].astype(np.int64)),
        }


def outputs(forward, batch):
    logits = forward(batch)
    torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="sum").backward()
    gradients = {name: p.grad for name, p in forward.named_parameters() if p.grad is not None}
    forward.zero_grad(set_to_none=True)
    return logits.detach(), gradients


@pytest.mark.parametrize("first_token", ["auto", "off"])
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_equals_recomputed(family, first_token):
    split = Split(family)
    forward = Forward(without_dropout(tiny_models.tiny(family)).double(), Speed(first_token=first_token))
    assert forward.family is not None, forward.why_plain
    source, draws = Source(split, 0, 0), Draws(np.array([3, 0, 4]))
    expected, all_gradients = outputs(forward, split.batch(draws))
    depths = range(1, len(forward.family.blocks) + 1)
    rows = row_shapes(forward, split, depths)
    arrays = {depth: np.full(source.shape(rows[depth]), np.nan) for depth in depths}
    for items in source.batches(tokens=20, examples=2):
        with torch.no_grad():
            found = forward(split.batch(Draws(np.array(items))), boundaries=depths)
        for depth in depths:
            source.write(arrays[depth], rows[depth], items, found[depth].numpy())
    groups = {group.name: {f"model.{name}" for name in group.parameters} for group in layer_groups(forward.model)}
    below = groups["embeddings"]
    for depth in depths:
        below = below | groups[f"layer.{depth - 1}"]
        store = source.cached(arrays[depth], rows[depth], depth=depth, is_text=forward.takes_text)
        logits, gradients = outputs(forward, store.batch(draws))
        torch.testing.assert_close(logits, expected, rtol=1e-8, atol=1e-10)
        assert gradients.keys() == all_gradients.keys() - below
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, all_gradients[name], rtol=1e-8, atol=1e-10)
    is_first = forward.family.reads_first_token
    assert (rows[depths[-1]] == Rows((32,), "example")) == is_first
