"""``stages:``: several runs from one configuration, each an overlay over what all have in common.

Layers, the lowest first: recipe, files, the stage's own overlay, ``key=value`` for all stages, ``stages[1].key=value``
for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from ..run_config import RunConfig
from ..stages.spec import Average, Stage, faults_of
from . import schema
from .faults import Fault
from .layers import STAGES, Layer, from_tree, overlaid, placed
from .validation import as_words, build, shown

# What a task is about, and not what it does: a stage with another task keeps it where it says nothing of it.
_KEPT = ("model", "data", "max_length", "truncation")


class Staged(NamedTuple):
    """The runs of a configuration."""

    stages: tuple[Stage, ...]
    tree: dict[str, Any]  # what makes them again


class _Overlay(NamedTuple):
    own: dict[str, Any]  # of the file
    command: dict[str, Any]  # of the command line, for this stage alone


def has_stages(layers: Sequence[Layer]) -> bool:
    """Whether a configuration is of several runs."""
    return any(STAGES in layer.tree for layer in layers)


def build_stages(below: Mapping[str, Any], layers: Sequence[Layer], faults: list[Fault]) -> Staged:
    """Every stage of a configuration; ``faults`` receives all that is wrong.

    Args:
        below: Of the recipe, or the defaults.
        layers: Of the files, and last that of the command line.
        faults: Receives what is wrong.
    """
    for_all = _without(layers[-1].tree, STAGES)
    base = dict(below)
    for layer in layers:
        base = overlaid(base, _without(layer.tree, STAGES))
    overlays = _overlays(layers, faults)
    if base.get("output_dir") is None:
        faults.append(Fault("output_dir", "missing; each stage is a folder in it"))
    stages, merged = [], []
    for number, overlay in enumerate(overlays):
        if overlay is None:
            stages.append(Stage("", cast(RunConfig, None)))
            continue
        over = _for_stage(for_all, number)
        own = _without(overlaid(overlay.own, overlay.command), "name")
        tree = overlaid(overlaid(_with_kept(base, own), over), overlay.command)
        spelling = _spelling(layers[-1], number)
        stages.append(_stage(overlay, tree, number, spelling, faults))
        below_command = overlay.own if "average" in overlay.own else overlaid(overlay.own, over)
        merged.append(overlaid(below_command, overlay.command))
        as_words(merged[-1], stages[-1].run, spelling)
        as_words(base, stages[-1].run, _spelling(layers[-1], None))
    if all("average" in overlay for overlay in merged):  # no stage has told what is wrong with the rest
        build(RunConfig, base, path="", faults=faults, spelling=layers[-1].spelling)
    _add_faults_between(stages, faults)
    return Staged(tuple(stages), {**base, STAGES: merged})


def _add_faults_between(stages: Sequence[Stage], faults: list[Fault]) -> None:
    """Adds what is wrong with the series, but for what follows from faults that are told already."""
    told = [fault.path for fault in faults]
    is_named = all(stage.name for stage in stages)
    for path, what in faults_of(stages):
        is_told = any(path == one or path.startswith(f"{one}.") for one in told)
        if not is_told and (is_named or ".average." not in path):
            faults.append(Fault(path, what))


def _overlays(layers: Sequence[Layer], faults: list[Fault]) -> list[_Overlay | None]:
    """The overlay of each stage; None where it is no mapping, which ``faults`` then say."""
    lists = [layer.tree[STAGES] for layer in layers[:-1] if STAGES in layer.tree]
    if not lists or not isinstance(lists[-1], list) or not lists[-1]:
        got = f"got {shown(lists[-1])}; " if lists else "there are none to lay values over; "
        faults.append(Fault(STAGES, f"{got}expected a list of mappings, one for each stage, in a file"))
        return []
    given = layers[-1].tree.get(STAGES, {})
    commands = given if isinstance(given, Mapping) else {"": given}
    wrong = [key for key, value in commands.items() if not _is_place(key, len(lists[-1]), value)]
    faults += [
        Fault(
            placed(f"{STAGES}.{key}") if key else STAGES,
            f"write {STAGES}[0].key=value to {STAGES}[{len(lists[-1]) - 1}].key=value",
        )
        for key in wrong
    ]
    found: list[_Overlay | None] = []
    for number, overlay in enumerate(lists[-1]):
        if not isinstance(overlay, Mapping):
            faults.append(Fault(f"{STAGES}[{number}]", f"got {shown(overlay)}; expected a mapping"))
            found.append(None)
            continue
        command = commands.get(str(number), {}) if str(number) not in wrong else {}
        found.append(_Overlay(_expanded(overlay), _expanded(command)))
    return found


def _is_place(key: str, count: int, value: Any) -> bool:
    return key in map(str, range(count)) and isinstance(value, Mapping)


def _expanded(tree: Mapping[str, Any]) -> dict[str, Any]:
    return from_tree(tree, origin="", lines={}).tree


def _spelling(layer: Layer, number: int | None) -> dict[str, str]:
    """How values of the command line were written: of all stages, and of one."""
    here = f"{STAGES}[{number}]."
    of_all = {key: text for key, text in layer.spelling.items() if not key.startswith(f"{STAGES}[")}
    return of_all | {key.removeprefix(here): text for key, text in layer.spelling.items() if key.startswith(here)}


def _stage(
    overlay: _Overlay, tree: dict[str, Any], number: int, spelling: Mapping[str, str], faults: list[Fault]
) -> Stage:
    """One stage; where its name or run is wrong, without that, so that the others can be checked against it."""
    path, own = f"{STAGES}[{number}]", overlaid(overlay.own, overlay.command)
    name = own.get("name")
    if not isinstance(name, str):
        what = "missing; give" if "name" not in own else f"got {shown(name)}; expected"
        faults.append(Fault(f"{path}.name", f"{what} a word: its folder is {number + 1}-<name>"))
        name = ""
    if "average" in own:
        run: Any = _average(own, path, faults)
    else:
        run = _run(tree, own, path, spelling, faults)
    task = own.get("task", {})
    is_own = isinstance(task, Mapping) and (
        "model" in _innermost(task) or _innermost(task).get("weights") == "scratch"
    )
    return Stage(name, run, "own" if is_own or not number else "previous")


def _average(own: Mapping[str, Any], path: str, faults: list[Fault]) -> Average | None:
    """The average of a stage; with a wrong share, at least the stages that it names."""
    for key in own:
        if key not in ("name", "average"):
            faults.append(Fault(f"{path}.{key}", "an average trains nothing; leave it out"))
    tree = own["average"]
    if not isinstance(tree, Mapping):
        faults.append(Fault(f"{path}.average", f"got {shown(tree)}; expected a mapping such as {{alpha: 0.5}}"))
        return None
    found: Average | None = build(Average, tree, path=f"{path}.average", faults=faults, spelling={})
    return found or Average(**{key: tree[key] for key in ("start", "end") if isinstance(tree.get(key), str)})


def _run(
    tree: dict[str, Any], own: Mapping[str, Any], path: str, spelling: Mapping[str, str], faults: list[Fault]
) -> RunConfig | None:
    """The run of a stage; a fault of what all stages have in common is told once, at its own path."""
    if "output_dir" in own:
        faults.append(Fault(f"{path}.output_dir", "a stage is a folder in output_dir of them all; leave it out"))
    if STAGES in own:
        faults.append(Fault(f"{path}.{STAGES}", "a stage holds no stages; write them one after another"))
    found: list[Fault] = []
    tree = _without(_without(tree, "name"), STAGES)
    run: RunConfig | None = build(RunConfig, tree, path="", faults=found, spelling=spelling)
    for fault in found:
        moved = fault if not _is_of(fault.path, own) else Fault(f"{path}.{fault.path}".rstrip("."), fault.what)
        if moved not in faults:
            faults.append(moved)
    return None if found else run


def _is_of(path: str, own: Mapping[str, Any]) -> bool:
    """Whether a value stands in the overlay, or is missing from what stands in it."""
    tree: Any = own
    for depth, key in enumerate(path.split(".") if path else []):
        if not isinstance(tree, Mapping):
            return True
        key = key.partition("[")[0]
        if key not in tree:
            return depth > 0 and "name" in tree  # the overlay names the component that lacks it
        tree = tree[key]
    return True


def _with_kept(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the overlay; another task in it keeps what both are about."""
    before, task = base.get("task"), own.get("task")
    if not isinstance(before, Mapping) or not isinstance(task, Mapping) or task.get("name") == before.get("name"):
        return overlaid(base, own)
    was, inside = _innermost(before), _innermost(task)
    kind = schema.chosen(schema.components(RunConfig, "task"), inside.get("name", was.get("name")))
    if kind is None:
        return overlaid(base, own)
    kept = {key: was[key] for key in _KEPT if key in was and key in schema.hints(kind)}
    return overlaid(base, {**own, "task": _replaced_inside(task, overlaid(kept, inside))})


def _innermost(task: Mapping[str, Any]) -> Mapping[str, Any]:
    while isinstance(task.get("base"), Mapping):
        task = task["base"]
    return task


def _replaced_inside(task: Mapping[str, Any], inside: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(task.get("base"), Mapping):
        return {**task, "base": _replaced_inside(task["base"], inside)}
    return dict(inside)


def _without(tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name != key}


def _for_stage(for_all: Mapping[str, Any], number: int) -> dict[str, Any]:
    """What the command line says of every stage: where to start is said of the first, from which the others follow."""
    found, task = _without(for_all, "output_dir"), for_all.get("task")
    if number and isinstance(task, Mapping):
        inside = _without_start(task)
        return {**found, "task": inside} if inside else _without(found, "task")
    return found


def _without_start(task: Mapping[str, Any]) -> dict[str, Any]:
    found = _without(_without(task, "model"), "weights")
    if isinstance(task.get("base"), Mapping):
        inside = _without_start(task["base"])
        return {**found, "base": inside} if inside else _without(found, "base")
    return found
