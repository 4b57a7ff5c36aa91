"""Invariants 1, 3 and 9: two processes give what one gives, and the same as each other."""

from __future__ import annotations

import pytest
import torch

from tests.distributed.two_ranks import on_ranks
from tests.runs import STRATEGIES, Exact, assert_close, digest, image_task, run, text_task, weights

TASKS = {"bert": text_task, "vit": image_task}
# Each strategy with each task once, DDP and FSDP2 alternating; the full product is a drill.
PAIRS = [
    (strategy, ("bert", "vit")[number % 2], sharded)
    for sharded in (False, True)
    for number, strategy in enumerate([*STRATEGIES], start=sharded)
]
PRODUCT = [(strategy, task, sharded) for strategy in STRATEGIES for task in TASKS for sharded in (False, True)]


def outcome(task, strategy):
    result = run(task, strategy=STRATEGIES[strategy], max_grad_norm=0, checkpoint=_last(), evaluate_every="2 steps")
    scores = [evaluation.score for evaluation in result.state.evaluations]
    return weights(result.model), scores, result.metrics, _is_sharded(result.model)


def _last():
    from finetune.policies import Checkpointing

    return Checkpointing(keep_best=0)


def check(folder, strategy, kind, sharded):
    task = Exact(TASKS[kind](folder))
    expected, scores, metrics, _ = outcome(task, strategy)
    first, second = on_ranks(lambda: outcome(task, strategy), sharded=sharded)
    assert_close(first[0], expected)
    assert digest(first[0]) == digest(second[0])
    assert first[3] == second[3] == sharded
    assert first[1] == second[1] == pytest.approx(scores)
    assert first[2]["validation"] == pytest.approx(metrics["validation"])


@pytest.mark.parametrize(("strategy", "kind", "sharded"), PAIRS)
def test_two_ranks_equal_one(tmp_path, strategy, kind, sharded):
    check(tmp_path, strategy, kind, sharded)


@pytest.mark.drill
@pytest.mark.parametrize(("strategy", "kind", "sharded"), PRODUCT)
def test_two_ranks_equal_one_in_every_combination(tmp_path, strategy, kind, sharded):
    check(tmp_path, strategy, kind, sharded)


@pytest.mark.parametrize("sharded", [False, True])
def test_clipping_sees_the_gradient_of_all_ranks(tmp_path, sharded):
    """To 1e-6: the norm is summed in another order. The clip is tight, so that it acts at every step."""
    task = Exact(text_task(tmp_path))

    def clipped():
        return weights(run(task, max_grad_norm=0.05, checkpoint=_last()).model)

    expected = clipped()
    first, second = on_ranks(clipped, sharded=sharded)
    for name, tensor in expected.items():
        assert torch.allclose(first[name], tensor, rtol=1e-6, atol=1e-8), name
    assert digest(first) == digest(second)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_half_precision_runs_on_two_ranks(tmp_path, sharded, name):
    from finetune.precision import Precision

    task = text_task(tmp_path)

    def losses():
        result = run(task, precision=Precision(name=name, emulate="yes"), checkpoint=_last(), length="4 steps")
        return result.metrics["validation"]["loss"], digest(weights(result.model)), _is_sharded(result.model)

    expected = run(task, checkpoint=_last(), length="4 steps").metrics["validation"]["loss"]
    first, second = on_ranks(losses, sharded=sharded)
    assert first == second
    assert first[0] == pytest.approx(expected, abs=0.02)
    assert first[2] == sharded


def _is_sharded(model):
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


@pytest.mark.parametrize("sharded", [False, True])
def test_a_curriculum_by_loss_equals_one_process(tmp_path, sharded):
    """The starting model is asked before anything trains: FSDP2 must come back from that forward too."""
    from finetune.curricula import Curriculum

    task = Exact(text_task(tmp_path))

    def trained():
        curriculum = Curriculum(difficulty="loss", start=0.4)
        settings = {"strategy": STRATEGIES["freeze"], "curriculum": curriculum, "checkpoint": _last()}
        return weights(run(task, max_grad_norm=0, **settings).model)

    expected = trained()
    for found in on_ranks(trained, sharded=sharded):
        assert_close(found, expected)


@pytest.mark.parametrize("sharded", [False, True])
def test_resume_and_best_weights_on_two_ranks(tmp_path, sharded):
    """Bit for bit; ranks read tensors in the hash order of their process, which here differs on purpose."""
    import torch.distributed as dist
    from safetensors.torch import load, save

    from finetune.errors import PreemptedError

    task = text_task(tmp_path)
    settings = {"strategy": STRATEGIES["gradual_unfreeze"], "evaluate_every": "3 steps"}

    def whole():
        return digest(weights(run(task, output_dir=str(tmp_path / f"whole-{sharded}"), **settings).model))

    def cut():
        for _ in range(dist.get_rank()):
            load(save({f"name-{number}": torch.zeros(1) for number in range(7)}))
        folder = str(tmp_path / f"cut-{sharded}")
        with pytest.raises(PreemptedError):
            run(task, output_dir=folder, stop_at=5, **settings)
        return digest(weights(run(task, output_dir=folder, existing="resume", **settings).model))

    assert len({*on_ranks(whole, sharded=sharded), *on_ranks(cut, sharded=sharded)}) == 1


def test_fsdp2_saves_what_it_trained_in_fp32(tmp_path):
    """A bf16 run's ``model/`` opens in fp32, with the loss that was reported."""
    import json

    from finetune.precision import Precision

    task = text_task(tmp_path)
    precision = Precision(name="bf16", emulate="yes")
    on_ranks(lambda: run(task, precision=precision, output_dir=str(tmp_path / "run")).metrics, sharded=True)
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["dtype"] == "float32"
