"""Invariants 1, 2, 4 and 11 over combinations of everything: what is planned runs, cut, stopped or fast."""

from __future__ import annotations

from dataclasses import is_dataclass
from itertools import combinations

import pytest

from finetune import schedules, strategies
from finetune.config.schema import UNIONS
from finetune.randomness import seed_for
from finetune.speed import PLAIN
from finetune.strategies.chains import chain
from finetune.training.placement import placed
from finetune.training.prepare import prepare
from tests.drawn import DRAWN
from tests.integration.test_plan_is_run import Watched
from tests.integration.test_resume import check as check_resume
from tests.product import PRODUCT, ROWS, SCHEDULES, STRATEGIES, Row, settings_of, task_of
from tests.runs import Exact, assert_close, config, run, weights


def named(rows: list[Row]) -> list:
    return [pytest.param(row, id="-".join(row)) for row in rows]


def check_course(row, folder):
    """Rates and momenta are the plan's, and what moves is what trains; returns the weights."""
    task, settings = Exact(task_of(row, folder)), settings_of(row)
    watched = Watched(settings["optimizer"])
    planned = config(task, **settings)
    with placed(planned.precision) as placement:
        prepared = prepare(planned, placement)
    plan, document = prepared.plan, prepared.document
    result = run(task, **settings | {"optimizer": watched})
    assert result.plan["digest"] != "" and len(watched.steps) == plan.total_steps == len(document["curve"])
    parts = {name: group.name for group in plan.groups for name in group.parameters}
    ever = set()
    for step, seen in enumerate(watched.steps):
        clock = plan.at(step, result.state.evaluations)
        rates, momenta = plan.rates(clock), plan.momenta(clock)
        assert seen["group_of"] == parts
        for name, lr in seen["lr"].items():
            assert lr == pytest.approx(rates.get(name, 0.0), rel=1e-12, abs=0) or name not in rates, (step, name)
            assert name not in momenta or seen["momentum"][name] == pytest.approx(momenta[name]), (step, name)
        trains = {name for name, group in parts.items() if rates.get(group)}
        assert seen["changed"] <= trains, f"step {step}"
        assert trains & seen["moving"] <= seen["changed"], f"step {step}"
        assert {parts[name] for name in seen["given"]} <= rates.keys(), f"step {step}"
        ever |= seen["changed"]
    assert ever <= {name for name, group in parts.items() if group in plan.trained()}
    assert {name for group in document["groups"] for name in group["new"]} <= ever, "new weights stayed as they were"
    return weights(result.model)


def check_ways(row, folder, found):
    """The plain way, cut small, comes to the same weights."""
    task, settings = Exact(task_of(row, folder)), settings_of(row)
    assert_close(weights(run(task, micro_batch=row.cut, speed=PLAIN, **settings).model), found)


def check(row, folder):
    found = check_course(row, folder / "files")
    if row.strategy != "mixout":  # it draws columns for each forward
        check_ways(row, folder / "files", found)
    stop = seed_for(0, "stop", *row) % 9 + 1
    check_resume(task_of(row, folder / "files"), folder, stop, micro_batch=row.cut, **settings_of(row))


def test_every_pair_of_small_factors_meets():
    """And every strategy and schedule is among the rows."""

    def values(rows, *places):
        return {tuple(row[place] for place in places) for row in rows}

    for one, other in combinations(range(2, 7), 2):
        assert len(values(ROWS, one, other)) == len(values(ROWS, one)) * len(values(ROWS, other)), (one, other)
    for place in (0, 1):
        assert values(ROWS, place) == values(PRODUCT, place)
    for one, other in combinations(range(7), 2):
        assert len(values(PRODUCT, one, other)) == len(values(PRODUCT, one)) * len(values(PRODUCT, other))


def test_every_strategy_and_schedule_that_is_shipped_is_in_the_product():
    """And in what a config may hold, and among the strategies that are drawn."""
    shipped = {kind for kind in vars(strategies).values() if is_dataclass(kind) and hasattr(kind, "phases")}
    assert {type(part) for found in STRATEGIES.values() for part in chain(found)} == shipped == {*UNIONS["strategy"]}
    assert DRAWN == shipped
    courses = {kind for kind in vars(schedules).values() if is_dataclass(kind) and hasattr(kind, "multiplier")}
    assert {type(found) for found in SCHEDULES.values()} == courses == {*UNIONS["schedule"]}


@pytest.mark.parametrize("row", named(ROWS[::4]))
def test_a_combination(tmp_path, row):
    check(row, tmp_path)


@pytest.mark.drill
@pytest.mark.parametrize("row", named([row for number, row in enumerate(ROWS) if number % 4]))
def test_every_pair_of_values(tmp_path, row):
    check(row, tmp_path)


@pytest.mark.drill
@pytest.mark.parametrize("row", named(PRODUCT))
def test_every_combination_of_strategy_and_schedule(tmp_path, row):
    check(row, tmp_path)
