"""The plan's picture and its tables: what they say, not how they look."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from finetune.cli.plan_plot import draw, figure_of
from finetune.cli.plan_tables import print_plan
from finetune.durations import Duration
from finetune.layers import LayerGroup
from finetune.optimizers import AdamW
from finetune.plan_document import RunFacts, describe
from finetune.plans import make_plan
from finetune.run_config import RunConfig
from finetune.schedules import (
    Constant,
    MultiStep,
    OneCycle,
    ReduceOnPlateau,
    SlantedTriangular,
    WarmupCosine,
    WarmupLinear,
)
from finetune.strategies import LPFT, Discriminative, Freeze, Full, GradualUnfreeze, NamedGroups
from finetune.strategies.base import Phase, Plateau, Rate


@dataclasses.dataclass(frozen=True)
class Named:
    name: str = "text_classification"


@dataclasses.dataclass(frozen=True)
class UntilPlateau:
    def adapt(self, model, new):
        return model

    def groups(self, layers, new):
        return tuple(layers)

    def phases(self, groups):
        everything = {group.name: Rate(1.0) for group in groups}
        return (
            Phase(Duration(0, "steps"), {"head": Rate(1.0)}),
            Phase(Plateau(1, "70%"), everything),
        )


def layers(blocks: int, parts: Sequence[str] = ()) -> tuple[LayerGroup, ...]:
    names = ["embeddings", *(f"layer.{at}" for at in range(blocks)), "head"]
    more = {name: tuple(f"{name}.{part}" for part in parts) if name.startswith("layer.") else () for name in names}
    return tuple(LayerGroup(name, (f"{name}.weight", *more[name])) for name in names)


def document(*, blocks=4, total=200, visible=(), evaluations=(50, 100, 150, 200), head_lr=None, parts=(), **settings):
    config = RunConfig(Named(), **{"optimizer": AdamW(lr=1e-3, head_lr=head_lr), **settings})
    groups = layers(blocks, parts)
    plan = make_plan(
        config.strategy,
        layers=groups,
        new=("head.weight",),
        schedule=config.schedule,
        optimizer=config.optimizer,
        total_steps=total,
        steps_per_epoch=50,
    )
    facts = RunFacts(
        library="transformers",
        num_examples=100,
        num_ranks=1,
        micro_batch="4 examples",
        micro_batches=(1, 2),
        precision="fp32",
        device="cpu",
        sizes={name: (4, 4) for group in groups for name in group.parameters},
        new=("head.weight",),
        visible=visible,
        evaluations=evaluations,
        data="",
        frozen_weights="",
        activations=0,
        warnings=[],
    )
    return describe(plan, config, facts)


def panels(**settings) -> dict:
    """The axes of a picture by what they show."""
    return {axes.get_ylabel(): axes for axes in figure_of(document(**settings), title="tiny").axes}


def labels(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def bars(axes) -> list[tuple[float, float, float]]:
    """(group, from, to) of every bar."""
    found = []
    for collection in axes.collections:
        for path in collection.get_paths():
            (x0, y0), (x1, y1) = path.vertices.min(axis=0), path.vertices.max(axis=0)
            found.append((round((y0 + y1) / 2), x0, x1))
    return sorted(found)


def test_a_line_for_each_course_and_a_bar_for_each_stretch():
    shown = panels(strategy=GradualUnfreeze(over="60%"), schedule=WarmupLinear())
    assert list(shown) == ["learning rate", "trains"]
    assert labels(shown["learning rate"]) == ["head", *(f"layer.{at}" for at in (3, 2, 1, 0)), "embeddings"]
    assert bars(shown["trains"]) == [(at, 24.0 * (5 - at), 200.0) for at in range(6)]
    names = [text.get_text() for text in shown["trains"].get_yticklabels()]
    assert names == ["embeddings", "layer.0", "layer.1", "layer.2", "layer.3", "head *"]
    line = shown["learning rate"].get_lines()[0]  # the embeddings: nothing before step 120, then the plan's
    steps, rates = line.get_data()
    assert np.isnan(np.asarray(rates)[np.asarray(steps) < 120]).all()
    assert rates[list(steps).index(150)] == pytest.approx(1e-3 * 50 / 180)


def test_groups_with_one_course_share_a_line():
    assert labels(panels(strategy=Full())["learning rate"]) == ["embeddings .. head"]
    assert labels(panels(strategy=Full(), head_lr=2e-3)["learning rate"]) == ["head", "embeddings .. layer.3"]
    shown = panels(strategy=Freeze(trainable=("head", "layer.0")))
    assert labels(shown["learning rate"]) == ["layer.0, head"]
    assert [text.get_text() for text in shown["trains"].texts] == ["frozen"] * 4


def test_a_long_legend_is_thinned_to_its_ends_and_some_between():
    found = labels(panels(blocks=24, strategy=Discriminative(decay=0.9))["learning rate"])
    assert len(found) == 14 and found[0] == "head" and found[-1] == "embeddings"
    found = labels(panels(blocks=12, strategy=Discriminative(decay=0.9))["learning rate"])
    assert found == ["head", *(f"layer.{at}" for at in reversed(range(12))), "embeddings"]


def test_parts_of_layers_have_lines_of_their_own_kind():
    """As the B of LoRA+, at another rate than what it lies beside and of nearly its colour."""
    cut = NamedGroups(patterns={f"layer.{at}.B": rf"^layer\.{at}\.B$" for at in range(4)}, scales={"layer.*.B": 16})
    shown = panels(strategy=cut, parts=("B",))["learning rate"]
    assert labels(shown) == ["layer.0.B .. layer.3.B", "embeddings .. head"]
    styles = {line.get_label(): line.get_linestyle() for line in shown.get_lines()}
    assert styles["layer.0.B .. layer.3.B"] == "-." and styles["embeddings .. head"] == "-"


def test_the_line_under_the_title_names_every_strategy():
    shown = panels(strategy=Discriminative(base=GradualUnfreeze(base=Full())))["learning rate"]
    assert shown.get_title(loc="left").startswith(
        "discriminative over gradual_unfreeze over full, warmup_linear, adamw,"
    )


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"strategy": Full()}, "linear"),
        ({"head_lr": 1e-2}, "log"),
        ({"strategy": Discriminative(decay=0.95), "blocks": 12}, "linear"),
        ({"strategy": Discriminative(decay=0.65), "blocks": 12}, "log"),
        ({"schedule": MultiStep(milestones=("30%", "60%"))}, "log"),
        ({"schedule": WarmupCosine()}, "linear"),
        ({"schedule": OneCycle()}, "linear"),
    ],
)
def test_the_axis_is_logarithmic_where_lines_would_lie_flat(settings, scale):
    assert panels(**settings)["learning rate"].get_yscale() == scale


def test_momentum_and_curriculum_have_panels_of_their_own():
    shown = panels(schedule=OneCycle(), visible=[(0, 0.3, 30), (100, 1.0, 100)])
    assert list(shown) == ["learning rate", "momentum", "trains", "visible data"]
    _, momenta = shown["momentum"].get_lines()[0].get_data()
    assert (min(momenta), max(momenta)) == pytest.approx((0.85, 0.95))
    steps, shares = shown["visible data"].get_lines()[0].get_data()
    assert list(steps) == [0, 100, 200] and list(shares) == [0.3, 1.0, 1.0]


def test_a_plateau_is_drawn_as_what_may_come():
    shown = panels(schedule=ReduceOnPlateau(patience=0, factor=0.5))["learning rate"]
    assert "if the score\nnever improves" in labels(shown)
    dashed = [line for line in shown.get_lines() if line.get_linestyle() == "--"]
    steps, rates = (list(values) for values in dashed[0].get_data())
    assert rates[steps.index(99)] == 1e-3 and rates[steps.index(100)] == 5e-4 and rates[steps.index(150)] == 2.5e-4
    low = panels(schedule=ReduceOnPlateau(patience=0, factor=0.3), head_lr=1e-2)["learning rate"]
    assert low.get_yscale() == "log" and low.get_ylim()[0] < 0.09e-3, "dashed lines are cut off"
    shown = panels(strategy=UntilPlateau(), schedule=Constant())["trains"]
    assert (0, 100.0, 140.0) in bars(shown) and (0, 140.0, 200.0) in bars(shown)
    assert "pale: sooner" in shown.get_title(loc="right")


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("schedule", [WarmupLinear(), OneCycle(), Constant()])
def test_the_shortest_runs_have_a_picture(total, schedule):
    shown = panels(total=total, schedule=schedule, evaluations=(total,))["learning rate"]
    steps, rates = shown.get_lines()[0].get_data()
    assert steps[0] == 0 and steps[-1] == total == shown.get_xlim()[1] and np.isfinite(rates).all()


@pytest.mark.parametrize("name", ["plan.png", "plan.svg", "plan.pdf"])
def test_the_same_plan_is_the_same_file(tmp_path, name):
    found = document(strategy=GradualUnfreeze(), schedule=OneCycle())
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        draw(found, tmp_path / folder / name, title="tiny")
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


# Tables


@dataclasses.dataclass(frozen=True)
class Triangles:
    """ULMFiT: one more group in each third, a triangle for each phase."""

    def adapt(self, model, new):
        return model

    def groups(self, layers, new):
        return tuple(layers)

    def phases(self, groups):
        own, names = SlantedTriangular(ratio=4), [group.name for group in reversed(groups)]
        starts = (Duration(0, "%"), Duration(50, "steps"), Duration(100, "steps"))
        return tuple(
            Phase(start, {name: Rate(1.0, own) for name in names[: count + 1]}) for count, start in enumerate(starts)
        )


@pytest.fixture
def printed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def lines(**settings) -> list[str]:
        print_plan(document(**settings), title="tiny")
        return [line.strip() for line in capsys.readouterr().out.splitlines()]

    return lines


def test_a_table_says_what_a_schedule_does_to_the_momentum(printed):
    assert "momentum   0.85 to 0.95, set by the schedule" in printed(schedule=OneCycle())
    assert not [line for line in printed(schedule=OneCycle(momenta=None)) if line.startswith("momentum")]


def test_a_table_says_that_its_rates_are_those_without_a_plateau(printed):
    said = "plateau    rates if the score improves; they may fall from step 100 on"
    assert said in printed(schedule=ReduceOnPlateau(patience=0))
    assert not [line for line in printed(schedule=ReduceOnPlateau()) if line.startswith("plateau")]


def test_a_table_shows_a_schedule_that_begins_again_as_one_line(printed):
    found = printed(strategy=Triangles(), blocks=1)
    (head,) = [line for line in found if line.startswith("head *")]
    assert head.split() == ["head", "*", "16", "16", "0-199", "1", "2.50e-4", "1e-3", "2.58e-4"]
    (layer,) = [line for line in found if line.startswith("layer.0")]
    assert layer.split()[3] == "50-199"
    assert "over each phase: slanted_triangular (warmup 10%, ratio 4) for embeddings .. head" in found


def test_a_table_says_which_stretch_a_schedule_is_of_where_there_are_several(printed):
    found = printed(strategy=LPFT(probe="25%", probe_schedule=Constant(), schedule=WarmupLinear()), blocks=1)
    assert "over steps 0-49: constant (warmup 0%) for head" in found
    assert "over steps 50-199: warmup_linear (warmup 10%) for embeddings .. head" in found


def test_a_table_tells_of_tasks_around_the_task_and_of_their_loss(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    print_plan(document() | {"wraps": [{"name": "super_loss", "smoothing": 0.9}, {"name": "mine"}]}, title="tiny")
    print_plan(document() | {"loss": {"name": "focal", "gamma": 2.0}}, title="tiny")
    print_plan(document(), title="tiny")
    found = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert found.count("task       super_loss (smoothing 0.9) over mine") == 1
    assert found.count("loss       focal (gamma 2)") == 1
    assert len([line for line in found if line.startswith(("task ", "loss "))]) == 2
