"""LP-FT, freezing out, groups and scales by name, and Auto-RGN, as tables of phases."""

from __future__ import annotations

import re

import pytest

from finetune.durations import Duration
from finetune.layers import layer_groups
from finetune.schedules import WarmupCosine
from finetune.strategies import (
    LPFT,
    AutoRGN,
    Discriminative,
    Freeze,
    FreezeOut,
    Full,
    GradualUnfreeze,
    LoRA,
    NamedGroups,
    Plateau,
)
from finetune.strategies.base import Strategy
from finetune.strategies.measuring import wants_gradients, with_gradients
from tests.tiny_models import tiny
from tests.unit.test_strategies import groups, scales, table

NORMS = {"embeddings": 0.02, "layer.0": 0.08, "layer.1": 0.04, "head": 5.0}


@pytest.mark.parametrize("strategy", [LPFT(), FreezeOut(), AutoRGN(), NamedGroups(scales={"layer.0": 0.5})])
def test_each_keeps_the_protocol_and_the_model(strategy):
    model = tiny("bert")
    layers = layer_groups(model)
    assert isinstance(strategy, Strategy)
    assert strategy.adapt(model, ()) is model and strategy.groups(layers, ()) == layers


# LP-FT


def test_lp_ft_probes_then_trains_everything():
    assert table(LPFT(probe="30%"), groups(2)) == [
        ("0 steps", {"head": 1.0}),
        ("30%", {"embeddings": 1.0, "layer.0": 1.0, "layer.1": 1.0, "head": 1.0}),
    ]


def test_the_head_slows_down_after_the_probe():
    found = table(LPFT(probe="2 epochs", head_scale=0.01, base=Discriminative(decay=0.5)), groups(2))
    assert found == [
        ("0 steps", {"head": 1.0}),
        ("2 epochs", {"embeddings": 0.125, "layer.0": 0.25, "layer.1": 0.5, "head": 0.01}),
    ]


def test_both_parts_may_have_a_schedule_of_their_own():
    probe, tune = WarmupCosine(warmup="0%"), WarmupCosine(warmup="5%")
    first, second = LPFT(probe_schedule=probe, schedule=tune).phases(groups(2))
    assert {rate.schedule for rate in first.rates.values()} == {probe}
    assert {rate.schedule for rate in second.rates.values()} == {tune}
    assert all(rate.schedule is None for phase in LPFT().phases(groups(2)) for rate in phase.rates.values())


def test_a_probe_may_end_when_it_has_converged():
    found = LPFT(probe="50%", patience=3).phases(groups(2))
    assert found[1].start == Plateau(patience=3, at_latest=Duration(50, "%"))


def test_lp_ft_over_adapters_and_under_them():
    over, under = LPFT(base=LoRA(rank=2)), LoRA(rank=2, base=LPFT())
    model = over.adapt(tiny("bert"), ())
    found = over.groups(layer_groups(model), ())
    assert [group.name for group in found] == ["layer.0", "layer.1", "head"]
    assert over.phases(found) == under.phases(found) and list(over.phases(found)[0].rates) == ["head"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LPFT(probe="0%"), "probe: '0%' is no interval"),
        (lambda: LPFT(probe="soon"), "'soon' is not a duration"),
        (lambda: LPFT(patience=1, probe_schedule=WarmupCosine()), "probe_schedule: it runs over the probe, whose"),
        (lambda: LPFT(base=Freeze()).phases(groups(2)), "lp_ft has nothing to train after the probe but the head"),
        (lambda: LPFT(base=Freeze(trainable=("layer.*",))).phases(groups(2)), "lp_ft probes the head, and no group"),
        (lambda: LPFT(base=GradualUnfreeze()).phases(groups(2)), "strategy.base: 'gradual_unfreeze' has 4 phases"),
    ],
)
def test_probes_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


# FreezeOut


def frozen_fraction(t: float, *, start: float, level: float) -> float:
    """MosaicML Composer's schedule of layer freezing, in shares of the run."""
    return level * max(0.0, (t - start) / (1 - start))


@pytest.mark.parametrize(("start", "level"), [(0.5, 1.0), (0.0, 1.0), (0.25, 0.5), (0.9, 0.3)])
def test_as_many_layers_are_frozen_as_composer_freezes(start, level):
    layers, total = groups(12), 10_000
    found = FreezeOut(start=f"{100 * start:g}%", level=level).phases(layers)
    clock = {"steps_per_epoch": 100, "total_steps": total}
    starts = [phase.start.steps(**clock) for phase in found]
    assert starts == sorted(starts) and starts[-1] < total
    for step in range(0, total, 37):
        phase = found[max(number for number, at in enumerate(starts) if at <= step)]
        # Composer floors the share times all layers but the last; half a step of rounding to whole updates
        frozen = {int(frozen_fraction((step + off) / total, start=start, level=level) * 13 + 1e-9) for off in (0, 0.5)}
        assert len(layers) - len(phase.rates) in frozen, step
        assert list(phase.rates) == [group.name for group in layers[len(layers) - len(phase.rates) :]]


def test_the_last_layer_never_freezes():
    found = table(FreezeOut(start="1 epoch", end="4 epochs"), groups(2))
    assert [(at, list(rates)) for at, rates in found] == [
        ("0 steps", ["embeddings", "layer.0", "layer.1", "head"]),
        ("2 epochs", ["layer.0", "layer.1", "head"]),
        ("3 epochs", ["layer.1", "head"]),
        ("4 epochs", ["head"]),
    ]


def test_at_the_end_of_the_run_nothing_is_left_to_freeze():
    assert [at for at, _ in table(FreezeOut(start="40%"), groups(2))] == ["0 steps", "60%", "80%"]


def test_thaw_then_freeze():
    found = table(FreezeOut(start="70%", end="100%", base=GradualUnfreeze(over="60%", decay=0.5)), groups(2))
    assert [(at, list(rates)) for at, rates in found] == [
        ("0 steps", ["head"]),
        ("20%", ["head", "layer.1"]),
        ("40%", ["head", "layer.1", "layer.0"]),
        ("60%", ["head", "layer.1", "layer.0", "embeddings"]),
        ("80%", ["head", "layer.1", "layer.0"]),
        ("90%", ["head", "layer.1"]),
    ]
    assert found[-1][1]["layer.1"] == 0.5


def test_freezing_goes_on_while_others_still_thaw():
    base = GradualUnfreeze(stages=(("head", "embeddings"), ("layer.*",)), order="given", over="50%")
    found = table(FreezeOut(start="10%", end="40%", level=1 / 3, base=base), groups(2))
    assert [(at, list(rates)) for at, rates in found] == [
        ("0 steps", ["head", "embeddings"]),
        ("40%", ["head"]),
        ("50%", ["head", "layer.0", "layer.1"]),
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FreezeOut(start="50%", end="3 epochs"), "end: '3 epochs' is not in the unit of start ('50%')"),
        (lambda: FreezeOut(start="50%", end="50%"), "end: '50%' is not after start ('50%')"),
        (lambda: FreezeOut(base=GradualUnfreeze(every="1 epoch")), "strategy.start: '50%' is not in the unit of its"),
        (lambda: FreezeOut(base=GradualUnfreeze(patience=1)), "freeze_out needs phases that start at set times"),
        (lambda: FreezeOut(base=LPFT(schedule=WarmupCosine())), "freeze_out cuts phases, so a schedule or a warm-up"),
        (lambda: FreezeOut(base=GradualUnfreeze(rewarm="1 steps")), "freeze_out cuts phases, so a schedule or a"),
        (
            lambda: FreezeOut(start="10%", base=GradualUnfreeze(over="50%")),
            "'embeddings' would freeze (at 40%) before it begins to train (at 50%)",
        ),
    ],
)
def test_freezing_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make().phases(groups(2))


# Groups and scales by name


def test_scales_of_groups():
    strategy = NamedGroups(scales={"layer.-1": 0.9, "layer.*": 0.5, "embeddings": 0.1})
    assert scales(strategy, groups(3)) == {
        "embeddings": 0.1,
        "layer.0": 0.5,
        "layer.1": 0.5,
        "layer.2": 0.9,  # the first that matches counts
        "head": 1.0,
    }


def test_scales_multiply_those_of_the_base():
    strategy = NamedGroups(scales={"layer.0": 0.5}, base=Discriminative(decay=0.5))
    assert scales(strategy, groups(2)) == {"embeddings": 0.125, "layer.0": 0.125, "layer.1": 0.5, "head": 1.0}


def test_surgical_subsets_by_regular_expression():
    strategy = NamedGroups(
        patterns={"attention": r"attention\.self\.(query|value)"}, base=Freeze(trainable=("attention", "head"))
    )
    found = strategy.groups(layer_groups(tiny("bert")), ())
    (phase,) = strategy.phases(found)
    trained = [name for group in found if group.name in phase.rates for name in group.parameters]
    assert list(phase.rates) == ["attention", "head"]
    assert sum(".query." in name or ".value." in name for name in trained) == 8
    assert not any(".key." in name or "intermediate" in name for name in trained)


def test_decay_over_depth_knows_a_group_named_below_a_layer():
    strategy = Discriminative(decay=0.5, base=NamedGroups(patterns={"layer.1.norms": r"layer\.1\..*LayerNorm"}))
    found = strategy.groups(layer_groups(tiny("bert")), ())
    assert [group.name for group in found] == ["embeddings", "layer.0", "layer.1", "layer.1.norms", "head"]
    assert scales(strategy, found) == {
        "embeddings": 0.125, "layer.0": 0.25, "layer.1": 0.5, "layer.1.norms": 0.5, "head": 1.0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NamedGroups(), "named_groups needs patterns (group name to regular expression), or scales, or both"),
        (lambda: NamedGroups(scales={"layer.0": 0.0}), "scales.layer.0: a factor above 0; got 0.0. To freeze a group"),
        (lambda: NamedGroups(scales={"haed": 0.5}), "strategy.scales: 'haed' matches no layer group (did you mean"),
        (lambda: NamedGroups(scales={"head": 5.0}), "strategy.scales: 'head' would scale the head; set"),
        (lambda: NamedGroups(scales={"*": 0.5}), "strategy.scales: '*' would scale the head"),
        (
            lambda: NamedGroups(scales={"layer.?": 0.5}, base=Freeze(trainable=("head", "embeddings"))),
            "strategy.scales: 'layer.?' is without effect, as 'layer.0', 'layer.1' never trains",
        ),
        (
            lambda: NamedGroups(scales={"layer.0": 0.5}, base=Freeze(trainable=("nose",))),
            "strategy.base.trainable: 'nose' matches no layer group",
        ),
    ],
)
def test_names_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make().phases(groups(2))


# Auto-RGN


def test_scales_are_norms_over_the_largest_below_the_head():
    strategy = AutoRGN(measured=NORMS)
    assert scales(strategy, groups(2)) == {"embeddings": 0.25, "layer.0": 1.0, "layer.1": 0.5, "head": 1.0}
    mixed = AutoRGN(measured=NORMS, base=Discriminative(decay=0.5))
    assert scales(mixed, groups(2)) == {"embeddings": 0.03125, "layer.0": 0.25, "layer.1": 0.25, "head": 1.0}


def test_the_largest_norm_is_of_what_trains():
    surgical = AutoRGN(measured=NORMS, base=Freeze(trainable=("embeddings", "layer.1", "head")))
    assert scales(surgical, groups(2)) == {"embeddings": 0.5, "layer.1": 1.0, "head": 1.0}


def test_a_group_finer_than_a_layer_has_the_norm_of_its_layer():
    layers = layer_groups(tiny("bert"))
    strategy = AutoRGN(measured=NORMS, base=NamedGroups(patterns={"layer.1.norms": r"layer\.1\..*LayerNorm"}))
    assert scales(strategy, strategy.groups(layers, ()))["layer.1.norms"] == 0.5


def test_who_asks_is_told():
    asking = Discriminative(base=GradualUnfreeze(base=AutoRGN(), order="relative_gradient_norm"))
    assert wants_gradients(asking) and not wants_gradients(Discriminative(base=Full()))
    told = with_gradients(asking, NORMS)
    assert not wants_gradients(told) and asking.base.measured is None  # a copy
    assert told.base.measured == told.base.base.measured == NORMS
    given = GradualUnfreeze(order="relative_gradient_norm", measured={"layer.0": 1.0, "layer.1": 2.0})
    assert with_gradients(given, NORMS) == given  # what a user gave stays


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoRGN(), "strategy.measured: relative gradient norms are not known yet"),
        (lambda: AutoRGN(measured={"layer.0": float("nan")}), "measured: relative gradient norms are finite"),
        (
            lambda: AutoRGN(measured={"layer.0": 0.0}),
            "measured: relative gradient norms are finite and some are above",
        ),
        (lambda: AutoRGN(measured={"layer.0": 1.0}), "strategy.measured: no norm of the group 'embeddings'"),
        (lambda: AutoRGN(measured=NORMS, base=Freeze()), "auto_rgn tells layers below the head apart, and none of"),
    ],
)
def test_measures_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make().phases(groups(2))
