"""What a configuration can hold is read back as it was: every class of every union, with every field of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest

from finetune.config import dump, resolve, schema
from finetune.curricula import Curriculum
from finetune.metrics.external import External
from finetune.plan_document import canonical
from finetune.run_config import RunConfig, as_plain
from finetune.tasks.images import ImageClassification
from finetune.tasks.text import TextClassification

# What a field can be, where its annotation does not say so.
_WORDS = {
    "data": ["sst2"],
    "train": ["b.csv"],
    "validation": ["10%"],
    "test": ["c.csv"],
    "source": ["other/metric"],
    "settings": [{"init_ia3_weights": False}],
    "max": [2.0**30],
    "sizes": [(64, 96)],
    "until": [("20%", "60%")],
    "revision": ["0" * 40],
    "micro_batch": ["8 examples"],
    "cache_memory": ["2 GB"],
    "cache_disk": ["3 GB"],
    "patterns": [{"norms": "norm"}],
    "measured": [{"head": 0.5, "layer.0": 2.0}],
    "class_weights": ["balanced", {"spam": 5.0}],
    "stages": [(("head",), ("layer.0",)), 7],
}
_TEXT = TextClassification(model="some/model", data="pydocs")
_IMAGE = ImageClassification(model="some/model", data="beans")
_PARTS: dict[str, dict[str, Any]] = {  # of the smallest of a class: what its annotations do not say
    "NamedGroups": {"patterns": {"norms": "norm"}},
    "Peft": {"peft_type": "IA3"},
    "MultiStep": {"milestones": ("50%",)},
    "Data": {"name": "other"},
    "External": {"source": "some/metric", "revision": "1" * 40},
    **dict.fromkeys(("ProgressiveResolution", "PatchDropout"), {"base": _IMAGE}),
    **dict.fromkeys(
        ("GrowingLength", "SuperLoss", "SelfPaced", "SelectiveBackprop", "DataMap", "L2SP"), {"base": _TEXT}
    ),
}
_WITH: dict[tuple[str, str], dict[str, Any]] = {  # what a field asks for beside it
    ("Curriculum", "stages"): {"pacing": "step"},
    ("Data", "most_bad"): {"bad_rows": "skip"},
    ("Cyclical", "gamma"): {"shape": "exp_range"},
    ("FreezeOut", "end"): {"start": "1 epoch"},
    ("GradualUnfreeze", "measured"): {"order": "relative_gradient_norm"},
}
_MOST = 3
_NUMBERS = [0.3, 0.6, 1.5, 2, 3, 0.05, 7, 0, 1, 20, 300]


def _choices(owner: type, field: str) -> list[Any]:
    """Values of a field, right or nearly right."""
    found = list(_WORDS.get(field, []))
    found += [_smallest(kind) for kind in schema.components(owner, field) if kind is not owner]
    found += [(_smallest(kind),) for kind in schema.items(owner, field)]
    return found + _of(schema.hints(owner)[field])


def _of(hint: Any) -> list[Any]:
    arguments = get_args(hint)
    if schema.expected(hint).startswith("a duration"):
        return ["7 steps", "25%", "1.5 epochs"]
    if get_origin(hint) is Annotated:
        return _of(arguments[0])
    if get_origin(hint) is Literal:
        return list(arguments)
    if get_origin(hint) is tuple:
        first = _of(arguments[0])
        count = 1 if ... in arguments else len(arguments)
        return [tuple(first[:1] * count), tuple(first[:count]), tuple(first[1 : count + 1]), tuple(first[:3])]
    if get_origin(hint) in (dict, Mapping):
        return [{"head": value} for value in _of(arguments[1])]
    if arguments:
        return [value for argument in arguments for value in _of(argument)]
    return {bool: [True, False], int: _NUMBERS[3:], float: _NUMBERS, str: ["word", "head.csv", "10%"]}.get(hint, [])


def _smallest(kind: type, **changes: Any) -> Any:
    """An instance with what is required."""
    settings = _PARTS.get(kind.__name__, {}) | changes
    needed = {field: _choices(kind, field)[0] for field in schema.required(kind) if field not in settings}
    return kind(**settings | needed)


def _run(value: Any) -> RunConfig | None:
    """A run that holds it."""
    text = _TEXT
    if isinstance(value, RunConfig):
        return value
    if isinstance(value, schema.UNIONS["task"]):
        return RunConfig(value)
    for owner, field, build in (
        (RunConfig, "strategy", lambda: RunConfig(text, strategy=value)),
        (RunConfig, "schedule", lambda: RunConfig(text, schedule=value)),
        (RunConfig, "optimizer", lambda: RunConfig(text, optimizer=value)),
        (RunConfig, "curriculum", lambda: RunConfig(text, curriculum=value)),
        (RunConfig, "precision", lambda: RunConfig(text, precision=value)),
        (RunConfig, "speed", lambda: RunConfig(text, speed=value)),
        (RunConfig, "checkpoint", lambda: RunConfig(text, checkpoint=value)),
        (RunConfig, "early_stopping", lambda: RunConfig(text, early_stopping=value)),
        (RunConfig, "non_finite", lambda: RunConfig(text, non_finite=value)),
        (Curriculum, "difficulty", lambda: RunConfig(text, curriculum=Curriculum(difficulty=value))),
        (TextClassification, "data", lambda: RunConfig(dataclasses.replace(text, data=value))),
        (TextClassification, "loss", lambda: RunConfig(dataclasses.replace(text, loss=value))),
        (TextClassification, "truncation", lambda: RunConfig(dataclasses.replace(text, truncation=value))),
    ):
        if type(value) in schema.components(owner, field):
            return build()
    return RunConfig(dataclasses.replace(text, metrics=(value,))) if isinstance(value, External) else None


KINDS = sorted(schema.CLOSED, key=lambda kind: kind.__name__)


def _others(kind: type, field: str) -> list[Any]:
    """Instances with another value of the field than it has by itself; some, as classes inside have their own test."""
    found: list[Any] = []
    for value in _choices(kind, field):
        if len(found) == _MOST:
            break
        try:
            one = _smallest(kind, **{field: value, **_WITH.get((kind.__name__, field), {})})
            _run(one)
        except (ValueError, TypeError):  # nearly right
            continue
        if getattr(one, field) != getattr(_smallest(kind), field):
            found.append(one)
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_it_is_read_back_as_it_was(kind, tmp_path):
    stored = tmp_path / "config.yaml"
    varied = {
        field: _others(kind, field) for field in schema.hints(kind) if not (field == "name" and schema.name_of(kind))
    }
    held_elsewhere = {"precision", "speed", "checkpoint", "non_finite"} if kind is RunConfig else set()
    assert [field for field, found in varied.items() if not found] == [f for f in varied if f in held_elsewhere]
    for one in [_smallest(kind), *(one for found in varied.values() for one in found)]:
        run = _run(one)
        assert run is not None
        stored.write_text(dump(run), encoding="utf-8")
        again = resolve(None, [stored], [])
        assert again == run, one
        assert canonical(as_plain(again)) == canonical(as_plain(run))


def test_every_class_of_every_union_is_among_them():
    assert {kind for kinds in schema.UNIONS.values() for kind in kinds} < set(KINDS)
