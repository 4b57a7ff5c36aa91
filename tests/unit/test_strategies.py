from __future__ import annotations

import re

import pytest
import torch

from finetune.durations import Duration
from finetune.layers import LayerGroup, layer_groups
from finetune.strategies import Discriminative, Freeze, Full, GradualUnfreeze, LoRA
from finetune.strategies.base import Phase, Plateau, Rate, Strategy
from tests.tiny_models import tiny


def groups(num_blocks: int) -> tuple[LayerGroup, ...]:
    names = ["embeddings", *(f"layer.{index}" for index in range(num_blocks)), "head"]
    return tuple(LayerGroup(name, (f"{name}.weight",)) for name in names)


def scales(strategy: Strategy, over: tuple[LayerGroup, ...]) -> dict[str, float]:
    """Of a strategy of one phase."""
    (phase,) = strategy.phases(over)
    assert phase.start == Duration(0, "steps")
    return {name: rate.scale for name, rate in phase.rates.items()}


def table(strategy: Strategy, over: tuple[LayerGroup, ...]) -> list[tuple[str, dict[str, float]]]:
    return [
        (str(phase.start), {name: rate.scale for name, rate in phase.rates.items()}) for phase in strategy.phases(over)
    ]


@pytest.mark.parametrize("strategy", [Full(), Freeze(), Discriminative(), GradualUnfreeze(), LoRA()])
def test_every_strategy_keeps_the_protocol(strategy):
    assert isinstance(strategy, Strategy) and strategy == type(strategy)()


@pytest.mark.parametrize("strategy", [Full(), Freeze(), Discriminative(), GradualUnfreeze()])
def test_what_adds_no_adapters_keeps_model_and_layers(strategy):
    model = tiny("bert")
    layers = layer_groups(model)
    assert strategy.adapt(model, ()) is model and strategy.groups(layers, ()) == layers


def test_full():
    assert scales(Full(), groups(2)) == {"embeddings": 1.0, "layer.0": 1.0, "layer.1": 1.0, "head": 1.0}


# Freeze


@pytest.mark.parametrize(
    ("trainable", "chosen"),
    [
        (("head",), {"head"}),
        (("head", "layer.-1"), {"layer.11", "head"}),
        (("layer.-12", "layer.0"), {"layer.0"}),
        (("head", "layer.1?"), {"layer.10", "layer.11", "head"}),
        (("layer.*",), {f"layer.{index}" for index in range(12)}),
        (("*",), {group.name for group in groups(12)}),
        (("layer.1",), {"layer.1"}),  # not layer.10 and 11
        (("layer.[01]", "emb*"), {"layer.0", "layer.1", "embeddings"}),
    ],
)
def test_freeze_trains_what_is_named(trainable, chosen):
    assert scales(Freeze(trainable=trainable), groups(12)) == dict.fromkeys(chosen, 1.0)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("haed", r"'haed' matches no layer group \(did you mean 'head'\?\); there are 'embeddings', 'layer.0'"),
        ("layer.-3", "'layer.-3' matches no layer group"),
        ("layer.-0", "'layer.-0' matches no layer group"),
        ("layer.2", "'layer.2' matches no layer group"),
        ("Head", "'Head' matches no layer group"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error(pattern, message):
    with pytest.raises(ValueError, match=message):
        Freeze(trainable=("head", pattern)).phases(groups(2))


@pytest.mark.parametrize("trainable", [(), "head"])
def test_what_is_no_list_of_groups_is_an_error(trainable):
    with pytest.raises(ValueError, match="^trainable: a list of groups, such as"):
        Freeze(trainable=trainable)


# Discriminative: the table of formulas.md, section 3


@pytest.mark.parametrize(
    ("convention", "decay", "top", "bottom", "embeddings"),
    [
        ("beit", 0.95, 0.950, 0.540, 0.513),
        ("sun2019", 0.95, 1.0, 0.569, 1.0),
        ("xlnet", 0.95, 1.0, 0.569, 1.0),
        ("electra", 0.95, 0.902, 0.513, 0.488),
        ("ulmfit", 1 / 2.6, 0.385, 1.048e-5, 4.03e-6),
        ("fastai", 0.01, 0.7017, 0.01425, 0.01),
    ],
)
def test_the_printed_tables_of_twelve_layers(convention, decay, top, bottom, embeddings):
    found = scales(Discriminative(decay=decay, convention=convention), groups(12))
    assert list(found) == [group.name for group in groups(12)]
    near = {"rel": 2e-3}
    assert found["head"] == 1.0
    assert found["layer.11"] == pytest.approx(top, **near)
    assert found["layer.0"] == pytest.approx(bottom, **near)
    assert found["embeddings"] == pytest.approx(embeddings, **near)


@pytest.mark.parametrize("convention", ["beit", "sun2019", "xlnet", "electra", "ulmfit", "fastai"])
def test_blocks_are_geometric(convention):
    found = scales(Discriminative(decay=0.7, convention=convention), groups(5))
    ratios = {round(found[f"layer.{index}"] / found[f"layer.{index + 1}"], 12) for index in range(4)}
    assert ratios == {round(0.7 ** (1 / 6), 12) if convention == "fastai" else 0.7}


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        ("beit", [0.125, 0.25, 0.5, 1.0]),
        ("ulmfit", [0.125, 0.25, 0.5, 1.0]),
        ("sun2019", [1.0, 0.5, 1.0, 1.0]),
        ("xlnet", [1.0, 0.5, 1.0, 1.0]),
        ("electra", [0.0625, 0.125, 0.25, 1.0]),
        ("fastai", [0.5, 0.5 ** (2 / 3), 0.5 ** (1 / 3), 1.0]),
    ],
)
def test_the_table_of_two_layers(convention, expected):
    found = scales(Discriminative(decay=0.5, convention=convention), groups(2))
    assert list(found.values()) == pytest.approx(expected, abs=1e-15)


def test_fastai_spreads_as_even_mults():
    """``even_mults(a, b, n)``: step = (b/a)^(1/(n-1)), rates a * step^i from the input up."""
    start, groups_of = 0.004, groups(4)
    step = (1 / start) ** (1 / (len(groups_of) - 1))
    found = scales(Discriminative(decay=start, convention="fastai"), groups_of)
    assert list(found.values()) == pytest.approx([start * step**index for index in range(6)])


def test_no_decay_is_full():
    for convention in ("beit", "sun2019", "xlnet", "electra", "ulmfit", "fastai"):
        assert scales(Discriminative(decay=1.0, convention=convention), groups(3)) == scales(Full(), groups(3))


@pytest.mark.parametrize("family", ["timm-vit", "timm-deit", "timm-dinov3"])
def test_beit_is_what_timm_does(family):
    """But for the final norm, which timm counts with the top block and BEiT and MAE with the head."""
    from timm.optim import param_groups_layer_decay

    model = tiny(family)
    torch_names = {id(parameter): name for name, parameter in model.named_parameters()}
    expected = {
        torch_names[id(parameter)]: group["lr_scale"]
        for group in param_groups_layer_decay(model, layer_decay=0.65)
        for parameter in group["params"]
    }
    layers = layer_groups(model)
    by_group = scales(Discriminative(decay=0.65), layers)
    found = {name: by_group[group.name] for group in layers for name in group.parameters}
    assert found.keys() == expected.keys()
    for name, scale in expected.items():
        assert found[name] == pytest.approx(1.0 if name.startswith("norm.") else scale), name


# GradualUnfreeze


def test_unfreezing_over_half_of_the_run():
    assert table(GradualUnfreeze(), groups(2)) == [
        ("0 steps", {"head": 1.0}),
        ("16.6666666667%", {"head": 1.0, "layer.1": 1.0}),
        ("33.3333333333%", {"head": 1.0, "layer.1": 1.0, "layer.0": 1.0}),
        ("50%", {"head": 1.0, "layer.1": 1.0, "layer.0": 1.0, "embeddings": 1.0}),
    ]


def test_unfreezing_one_more_every_epoch_is_ulmfit():
    found = table(GradualUnfreeze(every="1 epoch", decay=1 / 2.6), groups(2))
    assert [start for start, _ in found] == ["0 steps", "1 epoch", "2 epochs", "3 epochs"]
    assert [list(rates) for _, rates in found][2] == ["head", "layer.1", "layer.0"]
    assert found[3][1] == pytest.approx({"head": 1.0, "layer.1": 2.6**-1, "layer.0": 2.6**-2, "embeddings": 2.6**-3})


@pytest.mark.parametrize(("over", "unit"), [("60%", "%"), ("3 epochs", "epochs"), ("90 steps", "steps")])
def test_the_last_group_joins_at_the_stated_time(over, unit):
    phases = GradualUnfreeze(over=over).phases(groups(12))
    assert len(phases) == 14 and all(isinstance(phase.start, Duration) for phase in phases)
    clock = {"steps_per_epoch": 50, "total_steps": 1000}
    starts = [phase.start.steps(**clock) for phase in phases]
    end = Duration.parse(over).steps(**clock)
    assert starts == [int(end * count / 13 + 0.5) for count in range(14)]
    assert {phase.start.unit for phase in phases[1:]} == {unit}


def test_a_group_once_thawed_stays():
    phases = GradualUnfreeze(decay=0.9).phases(groups(4))
    for before, after in zip(phases, phases[1:], strict=False):
        assert before.rates.items() < after.rates.items()


def test_over_and_every_exclude_each_other():
    with pytest.raises(ValueError, match="give either over .* or every .*, not both: there are over and every"):
        GradualUnfreeze(over="50%", every="1 epoch")


@pytest.mark.parametrize("fields", [{"over": "half"}, {"every": "1"}, {"every": "0 epochs"}])
def test_unfreezing_needs_a_duration(fields):
    with pytest.raises(ValueError, match="is not a duration|is no interval"):
        GradualUnfreeze(**fields)


def test_one_group_alone_is_one_phase():
    assert table(GradualUnfreeze(), groups(0)[-1:]) == [("0 steps", {"head": 1.0})]


# Composition: scales multiply


def test_decay_over_unfreezing_is_unfreezing_with_decay():
    over = Discriminative(decay=0.9, base=GradualUnfreeze(over="40%"))
    assert table(over, groups(3)) == table(GradualUnfreeze(over="40%", decay=0.9), groups(3))


def test_scales_multiply():
    twice = Discriminative(decay=0.5, base=GradualUnfreeze(decay=0.5)).phases(groups(2))
    assert {name: rate.scale for name, rate in twice[-1].rates.items()} == pytest.approx(
        {"head": 1.0, "layer.1": 0.25, "layer.0": 0.0625, "embeddings": 0.015625}
    )
    mixed = Discriminative(decay=0.5, base=Discriminative(decay=0.5, convention="sun2019"))
    assert scales(mixed, groups(2)) == pytest.approx(
        {"embeddings": 0.125, "layer.0": 0.125, "layer.1": 0.5, "head": 1.0}
    )


def test_unfreezing_over_freezing_leaves_the_frozen_frozen():
    found = table(GradualUnfreeze(over="2 epochs", base=Freeze(trainable=("head", "layer.*"))), groups(2))
    assert [start for start, _ in found] == ["0 steps", "1 epoch", "2 epochs"]
    assert list(found[-1][1]) == ["head", "layer.1", "layer.0"]


def test_unfreezing_over_adapters():
    """The embeddings have no adapter, so they are no phase; the base's own groups are what is unfrozen."""
    strategy = GradualUnfreeze(over="50%", decay=0.9, base=LoRA(rank=2))
    model = strategy.adapt(tiny("bert"), ())
    plan_groups = strategy.groups(layer_groups(model), ())
    assert [group.name for group in plan_groups] == ["layer.0", "layer.1", "head"]
    assert all("lora_" in name for group in plan_groups[:-1] for name in group.parameters)
    assert table(strategy, plan_groups) == [
        ("0 steps", {"head": 1.0}),
        ("25%", {"head": 1.0, "layer.1": 0.9}),
        ("50%", {"head": 1.0, "layer.1": 0.9, "layer.0": pytest.approx(0.81)}),
    ]


def test_adapters_over_unfreezing_are_the_same_course():
    over, under = LoRA(rank=2, base=GradualUnfreeze(decay=0.9)), GradualUnfreeze(decay=0.9, base=LoRA(rank=2))
    made = []
    for strategy in (over, under):
        torch.manual_seed(0)
        model = strategy.adapt(tiny("bert"), ())
        found = strategy.groups(layer_groups(model), ())
        made.append((found, table(strategy, found)))
    assert made[0] == made[1]


def test_depth_scales_do_not_move_when_lower_groups_are_left_out():
    assert scales(Discriminative(decay=0.5), groups(3)[2:]) == {"layer.1": 0.25, "layer.2": 0.5, "head": 1.0}


@pytest.mark.parametrize("base", [GradualUnfreeze(), Discriminative(base=GradualUnfreeze())])
def test_two_courses_over_one_run_are_refused(base):
    with pytest.raises(ValueError, match=f"strategy.base: '{base.name}' has 4 phases, .* leave one of them out"):
        GradualUnfreeze(base=base).phases(groups(2))


def test_a_schedule_of_its_own_survives_composition():
    class OneGroup(Strategy):
        name = "one_group"

        def adapt(self, model, new):
            return model

        def groups(self, layers, new):
            return tuple(layers)

        def phases(self, groups):
            from finetune.schedules import Constant

            return (Phase(Duration(0, "steps"), {"head": Rate(2.0, Constant()), "layer.0": Rate(0.5)}),)

    for strategy in (Discriminative(decay=0.5, base=OneGroup()), GradualUnfreeze(decay=0.5, base=OneGroup())):
        rates = strategy.phases(groups(2))[-1].rates
        assert rates["head"].scale == 2.0 and type(rates["head"].schedule).__name__ == "Constant"
        assert rates["layer.0"] == Rate(0.125)


@pytest.mark.parametrize("patience", [0, -1])
def test_a_plateau_has_patience(patience):
    with pytest.raises(ValueError, match="patience counts evaluations, at least 1"):
        Plateau(patience=patience, at_latest="50%")


def test_a_plateau_has_an_end():
    with pytest.raises(ValueError, match=re.escape("'never' is not a duration")):
        Plateau(patience=1, at_latest="never")
