"""What of recorded steps can be seen without a GPU: shapes of batches, what fills them, and every way back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from finetune.data.sampling import MicroBatch
from finetune.encoders import Forward
from finetune.plans import make_plan
from finetune.precision import Precision
from finetune.progress import Progress
from finetune.speed import PLAIN, Speed
from finetune.strategies import Full
from finetune.tasks.base import Output
from finetune.training.buckets import MOST_TOKENS, bucket_of, filled, fixed, longest_of, shape_of
from finetune.training.cuda_graphs import Recordings, are_close
from finetune.training.fit import plan_run
from finetune.training.gpu_ways import gpu_words, num_updates
from finetune.training.gradients import Gradients
from finetune.training.placement import placed
from finetune.training.update import Trained, accumulate
from tests import tiny_models
from tests.runs import Exact, config, text_task, without_dropout

CPU = torch.device("cpu")


class Squares:
    """The squared logits of each example."""

    def forward(self, model, batch, progress):
        logits = model(batch)
        return Output(logits.square().sum(1), batch["weights"], logits)


def batch_of(lengths, *, seed: int = 0) -> dict:
    draw = torch.Generator().manual_seed(seed)
    return {
        "input_ids": torch.randint(5, tiny_models.VOCABULARY, (sum(lengths),), generator=draw),
        "lengths": torch.tensor(lengths),
        "labels": torch.zeros(len(lengths), dtype=torch.int64),
        "index": torch.arange(100, 100 + len(lengths)),
        "weights": torch.ones(len(lengths)),
    }


def forward_of(family: str) -> Forward:
    model = tiny_models.tiny(family.removesuffix(" mean"))
    if family.endswith(" mean"):
        model.config.classifier_pooling = "mean"
    return Forward(without_dropout(model).double().train())


def trained_of(forward: Forward) -> Trained:
    names, parameters = zip(*forward.named_parameters(), strict=True)
    return Trained(torch.optim.SGD([{"params": parameters, "names": names, "group": "all"}], lr=0.1))


def computed(forward: Forward, ways, batches: list[dict]) -> tuple[list, list, list[torch.Tensor]]:
    """Totals, what was seen, and the gradients."""
    trained = trained_of(forward)
    trained.clear()
    with placed(Precision(name="fp32")) as placement:
        totals, seen = ways(
            forward, batches, task=Squares(), progress=Progress(0, 10, 5), placement=placement, factor=0.25
        )
    return totals, seen, [gradient.clone() for gradient in trained.gradients()]


def test_buckets_hold_what_they_are_for_and_are_few():
    sizes = [bucket_of(tokens) for tokens in range(1, MOST_TOKENS + 1)]
    assert all(0 <= size - tokens < 256 for tokens, size in enumerate(sizes, 1))
    assert all(size - tokens < 64 for tokens, size in enumerate(sizes[:512], 1))
    assert len(set(sizes)) == 8 + (MOST_TOKENS - 512) // 256
    assert [longest_of(longest) for longest in (1, 64, 65, 128, 129, 512)] == [64, 64, 128, 128, 256, 512]


def test_batches_of_short_texts_have_few_shapes():
    """Lengths drawn around those of single sentences; each shape is one recording, of 16 at most."""
    draw = np.random.default_rng(0)
    shapes = set()
    for _ in range(200):
        lengths = np.clip(draw.lognormal(2.4, 0.6, size=32).astype(int), 3, 64).tolist()
        shapes.add(shape_of(fixed(filled(batch_of(lengths), batch_size=32))))
    assert len(shapes) <= 10


@pytest.mark.parametrize("num", [1, 2, 31, 32])
@pytest.mark.parametrize("longest", [3, 40, 200])
def test_what_fills_a_batch_up(num, longest):
    """Weight 0, at least one token each, short enough for any model's positions, after the batch's own examples."""
    lengths = np.random.default_rng(num).integers(2, longest + 1, size=num).tolist()
    batch = batch_of(lengths)
    found = filled(batch, batch_size=32)
    assert len(found["lengths"]) == len(found["index"]) == len(found["labels"]) == len(found["weights"]) == 40
    assert len(found["input_ids"]) == int(found["lengths"].sum()) == bucket_of(sum(lengths) + 40 - num)
    assert found["lengths"][num:].min() >= 1 and found["lengths"][num:].max() <= 33
    assert not found["weights"][num:].any()
    for name, tensor in batch.items():
        assert torch.equal(found[name][: len(tensor)], tensor)


def test_what_has_no_fixed_shape():
    one = batch_of([5, 6])
    assert filled(one, batch_size=1) is None
    assert filled(batch_of([200] * 42), batch_size=42) is None  # a GPU has enough to do
    images = {"pixel_values": torch.zeros(2, 3, 4, 4), "index": torch.arange(2), "weights": torch.ones(2)}
    assert filled(images, batch_size=4) is None
    tokens = {name: tensor for name, tensor in one.items() if name != "input_ids"}
    assert filled({**tokens, "hidden": torch.zeros(2, 8), "depth": torch.tensor(2)}, batch_size=4) is None
    assert filled({**tokens, "hidden": torch.zeros(11, 8), "depth": torch.tensor(1)}, batch_size=4) is not None


def test_shapes_tell_apart_what_a_recording_depends_on():
    short, long = (fixed(filled(batch_of(lengths), batch_size=4)) for lengths in ([90, 5], [40, 55]))
    assert short["input_ids"].shape == long["input_ids"].shape and shape_of(short) != shape_of(long)
    other = fixed(filled(batch_of([50, 44], seed=1), batch_size=4))
    assert shape_of(other) == shape_of(long)
    deep = [
        shape_of({"hidden": torch.zeros(4, 8), "depth": torch.tensor(depth), "index": torch.arange(4)})
        for depth in (1, 2)
    ]
    assert deep[0] != deep[1]


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert", "modernbert mean"])
def test_a_filled_batch_has_the_loss_and_gradient_of_the_batch(family):
    """Through groups, and in tensors of fixed shape through the ragged call that a recording makes."""
    forward, batch = forward_of(family), batch_of([12, 3, 30, 7, 7])
    totals, _, expected = computed(forward, accumulate, [batch])
    whole = filled(batch, batch_size=6)
    for other in (whole, fixed(whole)):
        found, _, gradients = computed(forward, accumulate, [other])
        for one, before in zip(found[0], totals[0], strict=True):
            torch.testing.assert_close(one.double(), before.double(), rtol=1e-10, atol=1e-12)
        for one, before in zip(gradients, expected, strict=True):
            torch.testing.assert_close(one, before, rtol=1e-8, atol=1e-10)


def test_kept_activations_are_filled_up_too():
    forward, batch = forward_of("minilm"), batch_of([12, 3, 30, 7, 7])
    with torch.no_grad():
        hidden = forward(batch, boundaries=(1,))[1]
    kept = {**{name: batch[name] for name in batch if name != "input_ids"}, "hidden": hidden, "depth": torch.tensor(1)}
    _, _, expected = computed(forward, accumulate, [kept])
    for other in (filled(kept, batch_size=6), fixed(filled(kept, batch_size=6))):
        _, _, gradients = computed(forward, accumulate, [other])
        for one, before in zip(gradients, expected, strict=True):
            torch.testing.assert_close(one, before, rtol=1e-8, atol=1e-10)


def test_a_recorded_step_never_asks_for_groups():
    """They follow from lengths on the CPU, which a replay does not read again."""
    forward = forward_of("modernbert")
    forward.model.config.sliding_window = 8
    for block in forward.family.blocks:
        block.attn.sliding_window = 8
    batch = batch_of([12, 3, 30])
    recorded = fixed(filled(batch, batch_size=4))
    with pytest.raises(AssertionError, match="may not depend on"):
        computed(forward, accumulate, [recorded])
    plain = {name: recorded[name] for name in recorded if name not in ("offsets", "positions")}
    _, _, expected = computed(forward, accumulate, [batch])
    for one, before in zip(computed(forward, accumulate, [plain])[2], expected, strict=True):
        torch.testing.assert_close(one, before, rtol=1e-8, atol=1e-10)


def test_without_a_gpu_recording_ends_with_a_reason_and_the_run_goes_on():
    """The real failure, in the update in which a shape is seen for the third time; its gradients stay."""
    forward = forward_of("bert")
    trained = trained_of(forward)
    ways = Gradients(trained, batch_size=6, recordings=Recordings(trained.parameters, device=CPU))
    for step in range(5):
        batch = batch_of([12, 3, 30, 7, 7], seed=step)
        totals, seen, expected = computed(forward, accumulate, [batch])
        if step == 2:
            with pytest.warns(UserWarning, match=r"speed\.cuda_graphs: steps are computed without recordings: \w+"):
                found, own, gradients = computed(forward, ways, [batch])
        else:
            found, own, gradients = computed(forward, ways, [batch])
        assert [float(value) for value in found[0]] == pytest.approx([float(value) for value in totals[0]], rel=1e-10)
        assert torch.equal(own[0][0], seen[0][0])
        torch.testing.assert_close(own[0][1], seen[0][1])
        for one, before in zip(gradients, expected, strict=True):
            torch.testing.assert_close(one, before, rtol=1e-8, atol=1e-10)
    ways.close()


def test_several_micro_batches_go_the_plain_way():
    forward = forward_of("bert")
    trained = trained_of(forward)
    ways = Gradients(trained, batch_size=6, recordings=Recordings(trained.parameters, device=CPU))
    batches = [batch_of([12, 3]), batch_of([7, 7], seed=1)]
    totals, seen, expected = computed(forward, accumulate, batches)
    found, own, gradients = computed(forward, ways, batches)
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))
    assert len(found) == len(totals) == len(own) == len(seen) == 2


def test_gradients_are_compared_one_by_one():
    torch.manual_seed(0)
    expected = [torch.randn(50), torch.randn(20) * 1e-6]
    assert are_close([tensor * 1.001 for tensor in expected], expected)
    assert are_close([expected[0], expected[1] * 2], expected)  # next to nothing beside the other
    assert not are_close([expected[0] * 1.03, expected[1]], expected)
    assert not are_close([expected[0] * float("nan"), expected[1]], expected)
    assert are_close(expected, [expected[0] * float("inf"), expected[1]]) is None


def test_where_they_are_used(tmp_path):
    """As on a GPU: only the device's name is read to decide."""
    settings = config(text_task(tmp_path), length="10000 steps")
    forward = forward_of("bert")

    def words(placement, *, lasts=(10_000,), micro_batch="32 examples", forward=forward, **changes):
        changed = dataclasses.replace(settings, **changes)
        found = gpu_words(
            forward, config=changed, lasts=lasts, micro_batch=MicroBatch(micro_batch), placement=placement
        )
        return found["compile"], found["cuda_graphs"]

    with placed(Precision(name="fp32")) as placement:
        assert words(placement) == ("idle: there is no GPU",) * 2
        assert words(placement, speed=PLAIN) == ("off: speed.compile is off", "off: speed.cuda_graphs is off")
        placement.device = torch.device("cuda")
        assert words(placement) == ("on", "on")
        assert words(placement, lasts=(90, 4999))[0].startswith("idle: it pays from about 5,000")
        assert words(placement, lasts=(90, 4999))[1] == "on"
        assert words(placement, lasts=(90,), speed=Speed(compile="on"))[0] == "on"
        assert words(placement, lasts=(90,))[1].startswith("idle: it pays from about 100")
        assert words(placement, micro_batch="4 examples") == ("on", "idle: an update is several micro-batches")
        assert words(placement, task=Exact(settings.task))[1] == "off: what Exact computes may depend on the step"
        padded = Forward(tiny_models.tiny("bert"), Speed(packed="off"))
        assert words(placement, forward=padded) == ("off: speed.packed is off",) * 2
        forward.recomputes = True
        assert words(placement) == ("on", "off: activations are computed again")
        placement.is_sharded = True
        assert words(placement)[0].startswith("off: the run has several processes")


def test_plan_tells(tmp_path):
    document = plan_run(config(text_task(tmp_path)))
    if not torch.cuda.is_available():
        assert document["speed"]["compile"] == document["speed"]["cuda_graphs"] == "idle: there is no GPU"


def test_phases_are_counted_by_the_plan_alone():
    from finetune.layers import layer_groups
    from finetune.optimizers import AdamW
    from finetune.schedules import WarmupLinear
    from finetune.strategies import GradualUnfreeze

    layers = layer_groups(tiny_models.tiny("bert"), new=())
    for strategy in (Full(), GradualUnfreeze(over="60%")):
        plan = make_plan(
            strategy,
            layers=layers,
            new=(),
            schedule=WarmupLinear(),
            optimizer=AdamW(),
            total_steps=100,
            steps_per_epoch=10,
        )
        assert sum(num_updates(plan)) == 100
        assert len(num_updates(plan)) == len(plan.phases)
