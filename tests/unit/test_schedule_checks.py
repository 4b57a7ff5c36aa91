"""Schedules that contradict the optimizer, or never act: named before anything trains."""

from __future__ import annotations

import dataclasses

import pytest

from finetune.durations import Duration
from finetune.errors import ConfigError
from finetune.layers import LayerGroup
from finetune.optimizers import SGD, AdamW
from finetune.plans import make_plan
from finetune.run_config import RunConfig
from finetune.schedules import Constant, Cyclical, MultiStep, OneCycle, ReduceOnPlateau, WarmupCosine, WarmupLinear
from finetune.strategies import Full
from finetune.strategies.base import Phase, Plateau, Rate
from finetune.training.schedule_checks import schedule_warnings

LAYERS = tuple(LayerGroup(name, (f"{name}.w",)) for name in ("layer.0", "head"))


@dataclasses.dataclass(frozen=True)
class Named:
    name: str = "text_classification"


@dataclasses.dataclass(frozen=True)
class Halves:
    """The head, then everything, each half with a schedule of its own if there is one."""

    first: object = None
    second: object = None

    def adapt(self, model, new):
        return model

    def groups(self, layers, new):
        return tuple(layers)

    def phases(self, groups):
        return (
            Phase(Duration(0, "steps"), {"head": Rate(1.0, self.first)}),
            Phase(Duration(50, "%"), {group.name: Rate(1.0, self.second) for group in groups}),
        )


@dataclasses.dataclass(frozen=True)
class UntilPlateau(Halves):
    """The second phase begins with a plateau, and otherwise not at all."""

    def phases(self, groups):
        first, second = Halves.phases(self, groups)
        return first, dataclasses.replace(second, start=Plateau(2, "100%"))


def warnings(schedule=None, *, strategy=None, optimizer=None, total=40, every=5) -> list[str]:
    config = RunConfig(
        Named(),
        strategy=strategy or Full(),
        schedule=schedule or WarmupLinear(),
        optimizer=optimizer or AdamW(),
    )
    plan = make_plan(
        config.strategy,
        layers=LAYERS,
        new=("head.w",),
        schedule=config.schedule,
        optimizer=config.optimizer,
        total_steps=total,
        steps_per_epoch=10,
    )
    return schedule_warnings(config, plan, range(every, total + 1, every))


@pytest.mark.parametrize(
    "schedule", [WarmupLinear(), OneCycle(), MultiStep(milestones=("50%", "39 steps")), ReduceOnPlateau(patience=5)]
)
def test_nothing_to_warn_of(schedule):
    assert warnings(schedule) == []


@pytest.mark.parametrize(("every", "acts"), [(5, True), (6, False), (20, False), (40, False)])
def test_a_plateau_that_never_comes(every, acts):
    """Patience 5 needs seven evaluations before the end: at 5 steps there are just so many."""
    found = warnings(ReduceOnPlateau(patience=5), every=every)
    assert (found == []) == acts
    if not acts:
        assert "schedule.patience: 5 is never exceeded" in found[0] and "needs 7 evaluations" in found[0]


def test_a_plateau_in_a_phase_counts_the_phases_evaluations():
    own = ReduceOnPlateau(patience=2)
    assert warnings(strategy=Halves(second=own), every=4) == []  # after 24, 28, 32 and 36
    (found,) = warnings(strategy=Halves(second=own), every=5)
    assert found.startswith("strategy: phase 1, schedule.patience: 2 is never exceeded") and "there are 3" in found


def test_a_schedule_that_only_a_plateau_comes_to_is_asked_too():
    """Three evaluations make the plateau, after 15 steps; then there are 20, 25, 30 and 35."""
    with pytest.raises(ConfigError, match=r"^strategy: phase 1, schedule: it sets the optimizer's momentum"):
        warnings(strategy=UntilPlateau(second=OneCycle()), optimizer=SGD(momentum=0.0))
    assert warnings(strategy=UntilPlateau(second=ReduceOnPlateau(patience=2))) == []
    (found,) = warnings(strategy=UntilPlateau(second=ReduceOnPlateau(patience=3)))
    assert "phase 1, schedule.patience: 3 is never exceeded" in found and "there are 4" in found
    (found,) = warnings(strategy=UntilPlateau(second=MultiStep(milestones=("20 steps", "25 steps"))))
    assert found == "strategy: phase 1, schedule.milestones: 25 steps without effect, as the end comes first"


def test_milestones_after_the_end():
    (found,) = warnings(MultiStep(milestones=("50%", "4 epochs", "90 steps")))
    assert found == "schedule.milestones: 4 epochs, 90 steps without effect, as the end comes first"
    (found,) = warnings(strategy=Halves(second=MultiStep(milestones=("50%", "30 steps"))))
    assert found == "strategy: phase 1, schedule.milestones: 30 steps without effect, as the end comes first"


def test_a_schedule_that_nothing_follows():
    both = Halves(first=Constant(), second=WarmupLinear())
    assert warnings(WarmupCosine(), strategy=both) == [
        "schedule: without effect, as every phase has a schedule of its own"
    ]
    assert warnings(strategy=both) == []  # the default, which nobody asked for
    assert warnings(WarmupCosine(), strategy=Halves(second=Constant())) == []


@pytest.mark.parametrize("schedule", [OneCycle(), Cyclical(half_cycle="10%")])
def test_momentum_of_an_optimizer_without_any_is_an_error(schedule):
    with pytest.raises(ConfigError, match=r"^schedule: it sets the optimizer's momentum, and optimizer.momentum is 0"):
        warnings(schedule, optimizer=SGD(momentum=0.0))
    with pytest.raises(
        ConfigError, match=r"^strategy: phase 1, schedule: .* with strategy: phase 1, schedule.momenta"
    ):
        warnings(strategy=Halves(second=schedule), optimizer=SGD(momentum=0.0))
    assert warnings(schedule, optimizer=SGD()) == warnings(schedule, optimizer=AdamW()) == []
    alone = dataclasses.replace(schedule, momenta=None)
    assert warnings(alone, optimizer=SGD(momentum=0.0)) == []
