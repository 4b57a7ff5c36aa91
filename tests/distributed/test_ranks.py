"""Invariants 1, 3 and 9: two processes give what one gives, and the same as each other."""

from __future__ import annotations

import pytest

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
    result = run(task, strategy=STRATEGIES[strategy], max_grad_norm=0, checkpoint=_last(), evaluate_every="5 steps")
    return weights(result.model), [e.score for e in result.state.evaluations], result.metrics


def _last():
    from finetune.policies import Checkpointing

    return Checkpointing(keep_best=0)


def check(folder, strategy, kind, sharded):
    task = Exact(TASKS[kind](folder))
    expected, scores, metrics = outcome(task, strategy)
    first, second = on_ranks(lambda: outcome(task, strategy), sharded=sharded)
    assert_close(first[0], expected)
    assert digest(first[0]) == digest(second[0])
    assert first[1] == second[1] == pytest.approx(scores)
    assert first[2]["validation"] == pytest.approx(metrics["validation"])


@pytest.mark.parametrize(("strategy", "kind", "sharded"), PAIRS)
def test_two_ranks_equal_one(tmp_path, strategy, kind, sharded):
    check(tmp_path, strategy, kind, sharded)


@pytest.mark.drill
@pytest.mark.parametrize(("strategy", "kind", "sharded"), PRODUCT)
def test_two_ranks_equal_one_in_every_combination(tmp_path, strategy, kind, sharded):
    check(tmp_path, strategy, kind, sharded)
