from __future__ import annotations

import math

import pytest
import torch
import transformers

from finetune.progress import Progress
from finetune.schedules import Constant, WarmupCosine, WarmupLinear

LENGTHS = [(1, 0), (2, 1), (7, 0), (7, 6), (10, 1), (19, 2), (50, 5), (50, 49), (120, 30), (333, 33)]  # T, w


def curve(schedule, total: int, *, beyond: int = 0) -> list[float]:
    """f(0) … f(T): the last is the end, which no update is applied with."""
    return [schedule.multiplier(Progress(step, total, total)) for step in range(total + 1 + beyond)]


def reference(name: str, total: int, **arguments) -> list[float]:
    """What a scheduler of transformers leaves in the optimizer, step by step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = getattr(transformers, name)(optimizer, **arguments)
    found = []
    for _ in range(total + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(("total", "warmup"), LENGTHS)
def test_linear_is_that_of_transformers_at_every_step(total, warmup):
    expected = reference("get_linear_schedule_with_warmup", total, num_warmup_steps=warmup, num_training_steps=total)
    assert curve(WarmupLinear(warmup=f"{warmup} steps"), total) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("total", "warmup"), LENGTHS)
def test_cosine_is_that_of_transformers_at_every_step(total, warmup):
    expected = reference("get_cosine_schedule_with_warmup", total, num_warmup_steps=warmup, num_training_steps=total)
    assert curve(WarmupCosine(warmup=f"{warmup} steps"), total) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("total", "warmup"), LENGTHS)
@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_cosine_with_a_floor_is_that_of_transformers_at_every_step(total, warmup, floor):
    lengths = {"num_warmup_steps": warmup, "num_training_steps": total}
    expected = reference("get_cosine_with_min_lr_schedule_with_warmup", total, min_lr_rate=floor, **lengths)
    assert curve(WarmupCosine(warmup=f"{warmup} steps", floor=floor), total) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("total", "warmup"), LENGTHS)
def test_the_closed_forms(total, warmup):
    linear, cosine = (
        curve(WarmupLinear(warmup=f"{warmup} steps"), total),
        curve(WarmupCosine(warmup=f"{warmup} steps", floor=0.2), total),
    )
    for t in range(total + 1):
        through = (t - warmup) / (total - warmup)
        assert linear[t] == pytest.approx(t / warmup if t < warmup else (total - t) / (total - warmup), abs=1e-15)
        expected = t / warmup if t < warmup else 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * through))
        assert cosine[t] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("total", "warmup"), LENGTHS)
def test_the_peak_is_reached_and_the_end_is_the_end(total, warmup):
    assert curve(WarmupLinear(warmup=f"{warmup} steps"), total)[warmup] == 1.0
    assert curve(WarmupCosine(warmup=f"{warmup} steps"), total)[warmup] == 1.0
    assert curve(WarmupLinear(warmup=f"{warmup} steps"), total, beyond=3)[total:] == [0.0] * 4
    assert curve(WarmupCosine(warmup=f"{warmup} steps", floor=0.3), total, beyond=3)[total:] == pytest.approx(
        [0.3] * 4
    )


def test_constant():
    assert curve(Constant(), 5) == [1.0] * 6


@pytest.mark.parametrize("schedule", [Constant(), WarmupLinear(), WarmupCosine()])
def test_momentum_is_left_to_the_optimizer(schedule):
    assert schedule.momentum(Progress(3, 10, 5)) is None


@pytest.mark.parametrize(("warmup", "peak"), [("10%", 4), ("1 epoch", 10), ("6 steps", 6), ("0%", 0)])
def test_a_warmup_has_a_unit(warmup, peak):
    values = [WarmupLinear(warmup=warmup).multiplier(Progress(step, 40, 10)) for step in range(41)]
    assert values.index(max(values)) == peak


@pytest.mark.parametrize(
    "schedule", [WarmupLinear(warmup="5 epochs"), WarmupCosine(warmup="40 steps"), WarmupLinear(warmup="100%")]
)
def test_a_warmup_as_long_as_the_run_is_an_error(schedule):
    with pytest.raises(ValueError, match="and the whole is 40; shorten it"):
        schedule.multiplier(Progress(0, 40, 8))


def test_one_update_has_no_warmup():
    assert curve(WarmupLinear(warmup="10%"), 1) == [1.0, 0.0]


@pytest.mark.parametrize("kind", [WarmupLinear, WarmupCosine])
def test_a_warmup_without_a_unit_is_refused_where_it_is_made(kind):
    with pytest.raises(ValueError, match="'500' is not a duration"):
        kind(warmup="500")


@pytest.mark.parametrize("floor", [-0.1, 1.5, math.nan])
def test_a_floor_outside_the_rate_is_refused(floor):
    with pytest.raises(ValueError, match="floor is a share of the base LR"):
        WarmupCosine(floor=floor)
