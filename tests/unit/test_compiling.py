"""Compiled blocks: the same numbers as the model's own, without compiling again for every batch."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from finetune.encoders import Forward
from finetune.encoders.attention import NAME, attend
from finetune.encoders.compiling import CompiledBlocks
from finetune.precision import Precision
from finetune.progress import Progress
from finetune.tasks.base import Output
from finetune.training.gradients import Gradients
from finetune.training.placement import placed
from finetune.training.update import Trained, accumulate
from tests import tiny_models
from tests.runs import without_dropout

LENGTHS = ([5, 9, 3], [30, 2, 2, 9], [8], [40, 20])


class Squares:
    """The squared logits of each example."""

    def forward(self, model, batch, progress):
        logits = model(batch)
        return Output(logits.square().sum(1), torch.ones(len(logits)), logits)


def forward_of(family: str, *, seed: int = 0) -> Forward:
    return Forward(without_dropout(tiny_models.tiny(family, seed=seed)).double().train())


def batches_of(family: str) -> list[dict]:
    draw = torch.Generator().manual_seed(0)
    if family not in tiny_models.TEXT:
        sizes = (3, 4, 5, 2)
        return [{**tiny_models.batch(family, size=size), "index": torch.arange(size)} for size in sizes]
    return [
        {
            "input_ids": torch.randint(5, tiny_models.VOCABULARY, (sum(lengths),), generator=draw),
            "lengths": torch.tensor(lengths),
            "index": torch.arange(len(lengths)),
            "weights": torch.ones(len(lengths)),
        }
        for lengths in LENGTHS
    ]


def doubled(batch: dict) -> dict:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in batch.items()}


def gradients(forward: Forward, batch: dict) -> list[torch.Tensor]:
    """The logits, and the gradient of the sum of their squares."""
    forward.zero_grad()
    logits = forward(doubled(batch))
    logits.square().sum().backward()
    return [logits.detach(), *(p.grad for p in forward.parameters() if p.grad is not None)]


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(("family", "backend"), [("minilm", "aot_eager"), ("modernbert", "eager"), ("vit", "eager")])
def test_compiled_blocks_give_the_same_numbers_and_are_compiled_once(family, backend):
    """Two blocks of minilm before its last, batches of several shapes: the graphs of the first batch do for all."""
    forward = forward_of(family)
    compiled = CompiledBlocks(forward.family.blocks, backend=backend)
    num_graphs = None
    for batch in batches_of(family):
        expected = gradients(forward, batch)
        with compiled.used():
            found = gradients(forward, batch)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        num_graphs = num_graphs or counters["stats"]["unique_graphs"]
        assert counters["stats"]["unique_graphs"] == num_graphs > 0
        assert num_graphs <= 4  # of BERT's block: up to attention, two after it, and feed-forward


def test_the_last_block_on_first_tokens_is_not_what_was_compiled():
    """Its forward is another function for that call; the compiled one would compute every token."""
    forward = forward_of("bert")
    batch = batches_of("bert")[0]
    expected = gradients(forward, batch)
    last = forward.family.blocks[-1]

    def refused(*_, **__):
        raise AssertionError("the compiled call of the last block")

    vars(last)["_compiled_call_impl"] = refused
    found = gradients(forward, batch)
    assert vars(last)["_compiled_call_impl"] is refused and "forward" not in vars(last)
    assert torch.equal(found[0], expected[0])


def test_nothing_stays_in_the_model_or_in_transformers():
    from transformers import AttentionInterface

    forward = forward_of("bert")
    before = [{*vars(module)} for module in forward.modules()]
    with CompiledBlocks(forward.family.blocks, backend="eager").used():
        assert all("_compiled_call_impl" in vars(block) for block in forward.family.blocks)
        assert AttentionInterface()[NAME] is not attend
    assert [{*vars(module)} for module in forward.modules()] == before
    assert AttentionInterface()[NAME] is attend


def test_what_cannot_be_compiled_is_computed_plainly_with_the_same_dropout():
    """And says why, once."""

    def broken(graph, inputs):
        raise RuntimeError("no compiler on this machine")

    forward = Forward(tiny_models.tiny("bert").train())
    names, parameters = zip(*forward.named_parameters(), strict=True)
    groups = [{"params": parameters, "names": names, "group": "all"}]
    trained = Trained(torch.optim.SGD(groups, lr=0.1))
    ways = Gradients(trained, batch_size=8, compiled=CompiledBlocks(forward.family.blocks, backend=broken))
    progress = Progress(0, 10, 5)
    found = []
    with placed(Precision(name="fp32")) as placement:
        for one in (accumulate, ways, ways):
            torch.manual_seed(3)
            settings = {"task": Squares(), "progress": progress, "placement": placement, "factor": 0.5}
            if one is ways and len(found) == 1:
                with pytest.warns(UserWarning, match=r"speed\.compile.*no compiler on this machine"):
                    one(forward, batches_of("bert")[:2], **settings)
            else:
                one(forward, batches_of("bert")[:2], **settings)
            found.append([gradient.clone() for gradient in trained.gradients()])
            trained.clear()
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
