"""What hypothesis draws: any strategy over any other, and the tiny models that they are for."""

from __future__ import annotations

import copy
import dataclasses
import re
import warnings
from functools import cache
from typing import Any, NamedTuple

from hypothesis import strategies as st

from finetune.layers import LayerGroup, layer_groups, plain_name
from finetune.schedules import OneCycle, SlantedTriangular, WarmupCosine, WarmupLinear
from finetune.strategies import (
    LPFT,
    AutoRGN,
    BitFit,
    Discriminative,
    Freeze,
    FreezeOut,
    Full,
    GradualUnfreeze,
    LoRA,
    Mixout,
    NamedGroups,
    NormTuning,
    Peft,
    Reinitialised,
)
from finetune.strategies.chains import chain, renewed
from tests.tiny_models import tiny

FAMILIES = ("bert", "vit")
_NEW = ("classifier.weight", "classifier.bias")
_ADAPTING = ("lora", "peft", "mixout", "reinitialised")
_NORMS = {"embeddings": 0.1, "layer.0": 0.4, "layer.1": 0.2, "head": 9.0}

# Most of it fits most runs, and some of it does not; as a config writes it, so that it is read as it was.
LONG = st.one_of(
    st.sampled_from(["0%", "10%", "20%", "30%", "50%", "60%", "90%"]),
    st.sampled_from(["1 step", "2 steps", "3 steps", "0.4 epochs", "1 epoch", "100%", "25 steps"]),
)
_OWN = st.sampled_from(
    [None, None, None, SlantedTriangular(), WarmupCosine(warmup="0%"), WarmupLinear(warmup="3 steps"), OneCycle()]
)
_GROUPS = st.sampled_from(["head", "layer.-1", "layer.-2", "layer.?", "embeddings", "*"])
_DECAY = st.sampled_from([1.0, 0.9, 0.5])
_PATTERNS = st.sampled_from([{}, {"norms": "(?i)norm"}, {"layer.1.bias": r"\.1\..*bias$"}])


class Adapted(NamedTuple):
    """A tiny model as a strategy has adapted it."""

    layers: tuple[LayerGroup, ...]
    new: tuple[str, ...]
    sizes: dict[str, tuple[int, ...]]


def adapted(strategy: Any, family: str) -> Adapted:
    """The layer map that a strategy meets, as a run makes it.

    Raises:
        ValueError: The model does not suit it.
    """
    parts = [dataclasses.replace(part, base=None) for part in chain(strategy) if part.name in _ADAPTING]
    found = _adapted(tuple(map(_Same, parts)), family)
    if isinstance(found, str):
        strategy.adapt(_model(family), _NEW)  # the whole chain, for the path that its message names
        raise AssertionError(f"parts of {strategy} are refused, and the whole is not: {found}")
    return found


def _model(family: str) -> Any:
    return copy.deepcopy(_tiny(family))  # ten times faster than to make it


_tiny = cache(tiny)


class _Same:
    """A part of a chain, equal to what looks the same: parts hold mappings, which have no hash."""

    def __init__(self, part: Any) -> None:
        self.part = part

    def __eq__(self, other: object) -> bool:
        return repr(self.part) == repr(other.part)  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash(repr(self.part))


@cache
def _adapted(parts: tuple[_Same, ...], family: str) -> Adapted | str:
    model, fresh = _model(family), _NEW
    strategy = None
    try:
        for part in reversed(parts):
            strategy = dataclasses.replace(part.part, base=strategy)
        if strategy is not None:
            model = strategy.adapt(model, fresh)
        wanted = {*fresh, *renewed(strategy, model)}
    except ValueError as error:
        return str(error)
    own = [(name, parameter) for name, parameter in model.named_parameters() if ".original_module." not in name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layers = layer_groups(model, new=fresh)
    return Adapted(
        layers,
        tuple(name for name, _ in own if plain_name(name) in wanted),
        {name: tuple(parameter.shape) for name, parameter in own},
    )


def _unfreezings(draw: Any) -> dict[str, Any]:
    when = draw(st.sampled_from(["", "over", "every", "at"]))
    times = {"at": tuple(draw(st.lists(LONG, min_size=1, max_size=4)))} if when == "at" else {}
    times |= {when: draw(LONG)} if when in ("over", "every") else {}
    order = draw(st.sampled_from(["top_down", "bottom_up", "relative_gradient_norm", "given"]))
    named = st.lists(st.lists(_GROUPS, min_size=1, max_size=2).map(tuple), min_size=1, max_size=3).map(tuple)
    return {
        **times,
        "patience": draw(st.sampled_from([None, None, 1, 2])),
        "stages": draw(named if order == "given" else st.sampled_from([None, None, 2, 3, 4])),
        "order": order,
        "measured": _NORMS if order == "relative_gradient_norm" else None,
        "mode": draw(st.sampled_from(["cumulative", "exclusive"])),
        "rewarm": draw(st.one_of(st.none(), st.none(), LONG)),
        "schedule": draw(_OWN),
        "decay": draw(_DECAY),
    }


def _probes(draw: Any) -> dict[str, Any]:
    return {
        "probe": draw(LONG),
        "patience": draw(st.sampled_from([None, None, 1, 2])),
        "head_scale": draw(st.sampled_from([1.0, 0.01])),
        "probe_schedule": draw(_OWN),
        "schedule": draw(_OWN),
    }


def _freezings(draw: Any) -> dict[str, Any]:
    start = draw(st.sampled_from(["0%", "10%", "40%", "70%", "2 steps"]))
    end = draw(st.sampled_from(["50%", "100%", "100%", "9 steps"]))
    return {"start": start, "end": end, "level": draw(st.sampled_from([0.3, 0.5, 1.0]))}


def _loras(draw: Any) -> dict[str, Any]:
    return {
        "rank": draw(st.sampled_from([1, 2])),
        "variant": draw(st.sampled_from(["plain", "dora"])),
        "lr_ratio": draw(st.sampled_from([1.0, 16.0])),
        "targets": draw(st.sampled_from(["all", (r"\.1\.",), ("attention",), ("nothing",)])),
        "ranks": draw(st.sampled_from([None, {r"\.1\.": 1}])),
    }


def _named(draw: Any) -> dict[str, Any]:
    scales = draw(st.dictionaries(_GROUPS, st.sampled_from([0.1, 2.0]), max_size=2))
    return {"patterns": draw(_PATTERNS), "scales": scales}


_CONVENTIONS = st.sampled_from(["beit", "sun2019", "xlnet", "electra", "ulmfit", "fastai"])
_ARGUMENTS: dict[type, Any] = {
    Discriminative: lambda draw: {"decay": draw(_DECAY), "convention": draw(_CONVENTIONS)},
    AutoRGN: lambda draw: {"measured": _NORMS},
    GradualUnfreeze: _unfreezings,
    LPFT: _probes,
    FreezeOut: _freezings,
    NamedGroups: _named,
    LoRA: _loras,
    Peft: lambda draw: {"peft_type": draw(st.sampled_from(["IA3", "LN_TUNING", "LOHA"]))},
    BitFit: lambda draw: {},
    NormTuning: lambda draw: {},
    Mixout: lambda draw: {"probability": 0.3},
    Reinitialised: lambda draw: {"blocks": draw(st.integers(0, 3))},
}
DRAWN = {Full, Freeze, *_ARGUMENTS}
_COURSES = (GradualUnfreeze, LPFT, FreezeOut, LoRA)
_FEW = st.lists(_GROUPS, min_size=1, max_size=3)
_ALONE = st.one_of(
    st.just(Full()),
    st.builds(Freeze, trainable=_FEW.map(tuple)),
    st.builds(Freeze, trainable=_FEW.map(lambda found: ("head", *found))),
)


@st.composite
def any_strategies(draw: Any, *, depth: int = 3) -> Any:
    """A strategy over up to so many others; what a class refuses must name a field, and is left out of the chain."""
    found = draw(st.one_of(st.none(), _ALONE))
    for _ in range(draw(st.integers(0 if found else 1, depth))):
        kind = draw(st.sampled_from([*_ARGUMENTS, *_COURSES, *_COURSES]))
        arguments = _ARGUMENTS[kind](draw)
        try:
            found = kind(**arguments, base=found)
        except ValueError as error:
            fields = {field.name for field in dataclasses.fields(kind)}
            assert fields & set(re.findall(r"[a-z_]+", str(error))), f"{kind.__name__} names no field: {error}"
    return found if found is not None else Full()
