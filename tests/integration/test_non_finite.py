"""A bad update under each policy: never applied, named, told alike on every rank; and the run goes on, or ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.checkpoints.reading import read_checkpoint
from finetune.errors import DivergedError
from finetune.optimizers import SGD, AdamW
from finetune.policies import Checkpointing, NonFinite
from finetune.precision import Precision
from finetune.schedules import Constant
from finetune.speed import Speed
from finetune.strategies import GradualUnfreeze
from finetune.tasks.data_map import DataMap
from finetune.training.fit import plan_run
from tests.distributed.two_ranks import on_ranks
from tests.forked import Acting
from tests.integration.test_resume import check
from tests.poisoned import NAN, PLACES, WEIGHT, Poisoned, Watched
from tests.runs import Exact, assert_close, config, digest, history, run, text_task, weights
from tests.unit.test_prefix import Course, phase

POLICIES = ("stop", "skip", "rollback")
BAD, BACK = 3, 2  # the update, and the step that was saved last before it
EVERY = Checkpointing(every="2 steps", keep_last=9)
LATE = {"evaluate_every": "10 steps"}
SHORT: dict[str, Any] = {
    "length": "5 steps",
    "evaluate_every": "5 steps",
    "checkpoint": EVERY,
    "schedule": Constant(),  # each update moves the weights
}


def outcome(task, place: str, policy: str, *, rank: int, folder: Path, **settings) -> dict[str, Any]:
    """What a run of five updates came to, of which one was bad on one rank."""
    seen = Watched(Poisoned(DataMap(base=task), place, (BAD,), rank), {}, {})
    said, state = "", None
    try:
        settings = {**SHORT, "non_finite": NonFinite(policy), "output_dir": str(folder), **settings}
        state = run(seen, **settings).state
    except DivergedError as error:
        said = str(error)
    return {
        "weights": seen.weights,
        "remembered": seen.remembered,
        "said": said,
        "not_finite": state and state.not_finite,
    }


def check_outcome(found: dict[str, Any], folder: Path, place: str, policy: str) -> None:
    """Of one rank."""
    seen, lines = found["weights"], history(folder)
    log, ended = [line["bad_update"] for line in lines if "bad_update" in line], lines[-1]["ended"]
    named = f"The weight {WEIGHT} " if place == "parameter" else "The first gradient that is not finite is that of "
    if policy == "stop" or (policy, place) == ("skip", "parameter"):
        assert max(seen) == BAD and ended == "diverged" and not log
        assert f"update {BAD}: " in found["said"] and "Its training examples are [" in found["said"]
        assert (named in found["said"]) == (place != "loss")
        remedy = "rollback" if place == "parameter" else "skip"
        assert (f"--resume and non_finite: {remedy}, or" in found["said"]) == (policy == "stop")
        return
    assert not found["said"] and found["not_finite"] == (1, 0) and ended == "finished"
    (line,) = log
    assert line["update"] == BAD and line["examples"]
    assert bool(line["not_finite"]) == (place != "gradient") and set(line["not_finite"]) <= set(line["examples"])
    assert line.get("weight") == (WEIGHT if place == "parameter" else None)
    assert bool(line.get("gradient")) == (place not in ("loss", "parameter"))
    assert line.get("back_to_step") == (BACK if policy == "rollback" else None)
    before = BAD if policy == "skip" else BACK
    assert seen[BAD + 1] == seen[before] and len({*seen.values()}) == len(seen) - 1
    remembered = found["remembered"]
    assert remembered[BAD + 1] == remembered[BAD] != remembered[BACK]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("bad_rank", [0, 1])
def test_each_place_on_each_rank(tmp_path, policy, bad_rank):
    """Five places on one rank of two: what is decided, said and left is the same on both."""
    task = text_task(tmp_path)

    def work():
        return {place: outcome(task, place, policy, rank=bad_rank, folder=tmp_path / place) for place in PLACES}

    first, second = on_ranks(work)
    assert first == second
    for place in PLACES:
        check_outcome(first[place], tmp_path / place, place, policy)


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_sharded_weights(tmp_path, policy):
    """Under FSDP2, in the places that change no weight on one rank alone."""
    task = text_task(tmp_path)

    def work():
        return [outcome(task, place, policy, rank=1, folder=tmp_path / place) for place in ("activation", "gradient")]

    first, second = on_ranks(work, sharded=True)
    assert first == second
    for found, place in zip(first, ("activation", "gradient"), strict=True):
        check_outcome(found, tmp_path / place, place, policy)


@pytest.mark.parametrize("policy", ["skip", "rollback"])
@pytest.mark.parametrize("stop", [4, 5, 6, 7])
def test_a_resume_over_it_is_exact(tmp_path, policy, stop):
    """Update 5 is bad, and 4 and 6 are saved anyhow; phases begin at 2, 4 and 6."""
    if (policy, stop) == ("rollback", 5):
        pytest.skip("a stop saves one checkpoint more, to which the rollback then goes")
    task = Poisoned(text_task(tmp_path), "gradient", (5,))
    settings = {"checkpoint": EVERY, "strategy": GradualUnfreeze(over="60%"), "evaluate_every": "3 steps"}
    check(task, tmp_path, stop, non_finite=NonFinite(policy), log_every="2 steps", **settings)
    for folder in ("whole", "cut"):
        assert json.loads((tmp_path / folder / "metrics.json").read_text())["skipped_updates"] == 1


@pytest.mark.parametrize("optimizer", [AdamW(lr=1e-2), SGD(lr=1e-2, momentum=0.9)])
def test_a_rollback_is_to_weights_and_moments_of_the_checkpoint(tmp_path, optimizer):
    """Also of a layer that began to train after it, which has no moments any more; the clock stays."""
    task = Poisoned(text_task(tmp_path), "activation", (5,))
    settings = {"strategy": GradualUnfreeze(over="60%"), "optimizer": optimizer, "checkpoint": EVERY}
    folder = tmp_path / "run"
    run(task, non_finite=NonFinite("rollback"), output_dir=str(folder), **settings)
    fourth, sixth, eighth = (read_checkpoint(folder / "checkpoints" / f"step-00000{step}") for step in (4, 6, 8))
    for stem in ("model", "optimizer"):
        assert digest(sixth.tensors[stem]) == digest(fourth.tensors[stem]) != digest(eighth.tensors[stem])
    assert sixth.documents["progress"]["step"] == 6


def test_frozen_layers_that_went_back_are_computed_anew(tmp_path):
    """What was kept of them at step 8 is of weights that the rollback to step 6 has replaced."""
    strategy = Course((phase("0 steps", "layer.0", "head"), phase("2 epochs", "head")))
    task = Poisoned(Exact(text_task(tmp_path)), "gradient", (9,))
    results = {}
    for where in ("memory", "off"):
        results[where] = run(
            task,
            length="20 steps",
            strategy=strategy,
            speed=Speed(prefix_cache=where),
            evaluate_every="5 steps",
            checkpoint=Checkpointing(every="6 steps", keep_best=0),
            non_finite=NonFinite("rollback"),
            output_dir=str(tmp_path / where),
        )
        (line,) = [line["bad_update"] for line in history(tmp_path / where) if "bad_update" in line]
        assert line["back_to_step"] == 6
    assert results["memory"].plan["cached"]["where"] == "memory"
    assert_close(weights(results["memory"].model), weights(results["off"].model))
    losses = [[each["loss"] for each in result.state.metrics.values()] for result in results.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-8)


class Spoiling(Acting):
    """An update whose figures are all right leaves a weight that is not; it is saved before the next one shows it."""

    def forward(self, model, batch, progress):
        if progress.step == self.step and model.training:
            weight = next(each for name, each in model.named_parameters() if name.endswith(WEIGHT))

            def spoil(each):
                handle.remove()
                each.data.view(-1)[0] = NAN

            handle = weight.register_post_accumulate_grad_hook(spoil)
        return self.task.forward(model, batch, progress)


@pytest.mark.parametrize("policy", ["rollback", "stop"])
def test_spoiled_weights_replace_no_checkpoint(tmp_path, policy):
    """Not even where only one is kept, so that there is one to go back to."""
    task, folder = text_task(tmp_path), tmp_path / "run"
    settings = {"checkpoint": replace(EVERY, keep_last=1, keep_best=0), "output_dir": str(folder), **LATE}
    spoiled = f"step 6 is not worth keeping .{WEIGHT} is not finite.; the newest one is: step 4"
    with pytest.warns(UserWarning, match=spoiled):
        if policy == "stop":
            with pytest.raises(DivergedError, match=f"update 6: .*The weight {WEIGHT} is not finite"):
                run(Spoiling(task, 5), **settings)
            assert [path.name for path in folder.glob("checkpoints/step-*")] == ["step-000004"]
            assert run(Spoiling(task), existing="resume", **settings).state.not_finite == (0, 0)
            return
        state = run(Spoiling(task, 5), non_finite=NonFinite(policy), **settings).state
    (line,) = [line["bad_update"] for line in history(folder) if "bad_update" in line]
    assert (line["update"], line["back_to_step"], state.not_finite, state.step) == (6, 4, (1, 0), 10)


def test_a_run_does_not_finish_with_spoiled_weights(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(
        DivergedError, match=f"step 10 is not worth keeping .{WEIGHT} is not finite.*newest one is: st"
    ):
        run(Spoiling(text_task(tmp_path), 9), checkpoint=EVERY, output_dir=str(folder), **LATE)
    assert history(folder)[-1]["ended"] == "diverged" and not (folder / "model").exists()


def test_so_many_in_a_row_are_skipped_and_no_more(tmp_path):
    task = text_task(tmp_path)
    policy = NonFinite("skip", at_most=2)
    state = run(Poisoned(task, "loss", (2, 3, 5, 6)), non_finite=policy).state
    assert state.not_finite == (4, 0) and state.step == 10
    with pytest.raises(DivergedError, match=r"update 4: .*3 updates in a row, and non_finite.at_most is 2\. "):
        run(Poisoned(task, "loss", (2, 3, 4)), non_finite=policy)


def test_so_many_in_a_run_are_rolled_back_and_no_more(tmp_path):
    task = Poisoned(text_task(tmp_path), "loss", (2, 4, 6))
    settings = {"checkpoint": EVERY, "output_dir": str(tmp_path / "run")}
    with pytest.raises(DivergedError, match=r"update 6: .*3 updates, and non_finite.at_most is 2\. "):
        run(task, non_finite=NonFinite("rollback", at_most=2), **settings)


@pytest.mark.parametrize("has_folder", [True, False])
def test_without_a_checkpoint_a_rollback_ends_the_run(tmp_path, has_folder):
    folder = str(tmp_path / "run") if has_folder else None
    with pytest.raises(DivergedError, match="update 1: .*There is no checkpoint to go back to"):
        run(Poisoned(text_task(tmp_path), "loss", (1,)), non_finite=NonFinite("rollback"), output_dir=folder)


def test_after_a_stop_the_policy_may_change(tmp_path):
    """As the message says: what a bad update costs is no part of the plan that a resumed run must agree on."""
    task, folder = Poisoned(text_task(tmp_path), "loss", (3,)), str(tmp_path / "run")
    with pytest.raises(DivergedError, match="go on from step 2 with --resume and non_finite: skip"):
        run(task, output_dir=folder, checkpoint=EVERY)
    result = run(task, output_dir=folder, checkpoint=EVERY, existing="resume", non_finite=NonFinite("skip"))
    assert result.state.step == 10 and result.state.not_finite == (1, 0)


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_under_fp16_a_bad_loss_is_no_overflow(tmp_path, policy):
    """No smaller scale would mend it: it is the policy's affair, and the scale stays."""
    precision = Precision(name="fp16", emulate="yes", initial_scale=2.0**10)
    task, settings = Poisoned(text_task(tmp_path), "loss", (3,)), {"precision": precision, "length": "5 steps"}
    if policy == "stop":
        with pytest.raises(DivergedError, match="update 3: loss nan"):
            run(task, **settings)
        return
    state = run(task, non_finite=NonFinite(policy), **settings).state
    assert state.not_finite == (1, 0) and state.scaler == (2.0**10, 4, 0)


def test_under_fp16_a_gradient_is_until_the_scale_is_at_its_minimum(tmp_path):
    precision = Precision(name="fp16", emulate="yes", initial_scale=2.0, min=1.0)
    task = Poisoned(text_task(tmp_path), "gradient", (2, 3))
    settings = {"precision": precision, "length": "5 steps"}
    state = run(task, non_finite=NonFinite("skip"), **settings).state
    assert state.scaler.skipped == 1 and state.scaler.scale == 1.0 and state.not_finite == (1, 0)
    with pytest.raises(DivergedError, match="update 3: .*with the loss scale at its minimum 1"):
        run(task, **settings)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"non_finite": NonFinite(at_most=5)}, "at_most: 5: without effect"),
        ({"non_finite": NonFinite("rollback")}, "nothing is saved without output_dir"),
        (
            {"non_finite": NonFinite("rollback"), "output_dir": "x"},
            "before the first checkpoint (step 4) ends the run",
        ),
        ({"non_finite": NonFinite("skip")}, None),
    ],
)
def test_the_plan_says_where_a_policy_does_less_than_it_says(tmp_path, changes, expected):
    told = [text for text in plan_run(config(text_task(tmp_path), **changes))["warnings"] if "non_finite" in text]
    assert (expected is None and not told) or (len(told) == 1 and expected in told[0])
