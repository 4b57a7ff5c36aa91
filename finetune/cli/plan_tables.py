"""The plan of a run as text: readable at 80 columns, no number ever wrapped."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ..layers import plain_name
from ..wording import count, rate, size, worded
from .tables import console, print_table


def print_plan(plan: Mapping[str, Any], *, title: str) -> None:
    """Prints the document of ``plan_run``: head, groups, phases, curriculum, memory, warnings."""
    from rich.text import Text

    out = console()
    for line in _head(plan, title):
        out.print(Text(_wrapped(line, out.width)))
    out.print()
    _print_groups(plan)
    if len(plan["phases"]) > 1:
        _print_phases(plan)
    if plan.get("curriculum"):
        _print_curriculum(plan)
    for line in [*_own_schedules(plan), *_new(plan), *_foot(plan)]:
        out.print(Text(_wrapped(line, out.width)))
    for warning in plan["warnings"]:
        out.print(Text(f"warning: {warning}", style="yellow"))


def _head(plan: Mapping[str, Any], title: str) -> list[str]:
    cuts = plan["micro_batches_per_step"]
    per_step = str(cuts["min"]) if cuts["min"] == cuts["max"] else f"{cuts['min']} to {cuts['max']}"
    ranks = f"{plan['num_ranks']} process{'es' if plan['num_ranks'] > 1 else ''}"
    return [
        f"{title}: {plan['task']} with {plan['model'] or 'a model of its own'} ({plan['library']})",
        *_task(plan),
        f"  strategy   {worded(plan['strategy'])}",
        *_schedule(plan),
        f"  optimizer  {worded(plan['optimizer'])}",
        f"  steps      {count(plan['total_steps'])} = {_epochs(plan)} x {count(plan['steps_per_epoch'])};"
        f" {count(plan['num_examples'])} examples, {plan['batch_size']} per step",
        *_cut(plan),
        *_difficulty(plan),
        f"  hardware   {ranks}, {plan['device']}, {plan['precision']};"
        f" {per_step} micro-batch{'es' if per_step != '1' else ''} per step and process"
        f" (at most {plan['micro_batch']})",
        f"  trains     {count(plan['num_trained'])} of {count(plan['num_parameters'])} parameters",
        *_speed(plan.get("speed", {})),
    ]


def _task(plan: Mapping[str, Any]) -> list[str]:
    """Tasks around the task with their settings, and a loss that is not plain cross-entropy."""
    wraps, loss = plan.get("wraps") or [], plan.get("loss") or {}
    lines = [f"  task       {' over '.join(map(worded, wraps))}"] if wraps else []
    if loss and loss != {"name": "cross_entropy", "label_smoothing": 0.0, "class_weights": "none"}:
        lines.append(f"  loss       {worded(loss)}")
    return lines


def _cut(plan: Mapping[str, Any]) -> list[str]:
    """What the length limit leaves out."""
    cut = plan.get("cut")
    if not cut:
        return []
    texts = "1 text is" if cut["num_texts"] == 1 else f"{count(cut['num_texts'])} texts are"
    field = f"task.{'base.' * (len(plan.get('wraps') or [0]) - 1)}max_length"
    return [f"  cut        {texts} longer than {field}; {cut['share_of_tokens']:.1%} of tokens are left out"]


def _schedule(plan: Mapping[str, Any]) -> list[str]:
    """The run's schedule, the momentum where one sets it, and what a plateau may do."""
    momenta = [value for point in plan["curve"] for value in point["momentum"].values()]
    lines = [f"  schedule   {worded(plan['schedule'])}"]
    if momenta:
        lines.append(f"  momentum   {min(momenta):.4g} to {max(momenta):.4g}, set by the schedule")
    if plan["plateau"]:
        earliest = count(plan["plateau"]["earliest"])
        lines.append(f"  plateau    rates if the score improves; they may fall from step {earliest} on")
    return lines


def _speed(ways: Mapping[str, str]) -> list[str]:
    """Which techniques the run takes; of those that it does not, the ones that nobody switched off, and why."""
    taken, left = [], []
    for name, words in ways.items():
        word, _, why = words.partition(": ")
        if word == "off" and why and not why.startswith("speed."):
            left.append(f"{name} ({why})")
        elif word.startswith("on"):
            taken.append(f"{name} ({why})" if why else name)
    return [
        *([f"  speed      {', '.join(taken)}"] if taken else []),
        *([f"  not used   {', '.join(left)}"] if left else []),
    ]


def _epochs(plan: Mapping[str, Any]) -> str:
    epochs = plan["total_steps"] / max(1, plan["steps_per_epoch"])
    return f"{epochs:.4g} epoch{'' if epochs == 1 else 's'}"


def _print_groups(plan: Mapping[str, Any]) -> None:
    rows = []
    for group in plan["groups"]:
        name = group["name"] + (" *" if group["new"] else "")
        facts = [name, count(group["num_parameters"]), count(group["num_decayed"])]
        if not group["trains"]:
            rows.append([*facts, "frozen", "", "", "", ""])
        for part in _joined(group["trains"]):
            rates = [rate(part[key]) for key in ("lr_start", "lr_peak", "lr_end")]
            rows.append([*facts, _span(part), f"{part['scale']:.3g}", *rates])
            facts = ["", "", ""]
    columns = ("group", "parameters", "decayed", "steps", "scale", "lr start", "peak", "end")
    print_table(columns, rows, right=(1, 2, 3, 4, 5, 6, 7))


def _joined(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring stretches with one scale and one schedule, which begins again in each, as one."""
    joined: list[dict[str, Any]] = []
    for part in parts:
        last = joined[-1] if joined else {}
        if last.get("to") == part["from"] and all(last[key] == part[key] for key in ("scale", "schedule", "warmup")):
            last |= {key: part[key] for key in ("to", "lr_end")}
            last["lr_peak"] = max(last["lr_peak"], part["lr_peak"])
        else:
            joined.append(dict(part))
    return joined


def _own_schedules(plan: Mapping[str, Any]) -> list[str]:
    """Which groups follow another schedule than the run's, or warm up where they join."""
    order = [group["name"] for group in plan["groups"]]
    found: dict[str, list[str]] = {}
    own = [part["schedule"] for group in plan["groups"] for part in group["trains"] if part["schedule"]]
    over = "each phase" if all(schedule == own[0] for schedule in own) else ""
    for group in plan["groups"]:
        said = [
            f"over {over or f'steps {_span(part)}'}: {worded(part['schedule'])}"
            for part in group["trains"]
            if part["schedule"]
        ]
        said += [f"warm-up in a phase: {part['warmup']}" for part in group["trains"] if part["warmup"]]
        for words in dict.fromkeys(said):
            found.setdefault(words, []).append(group["name"])
    return [f"{words} for {_run_of({'trains': names}, order)}" for words, names in found.items()]


def _new(plan: Mapping[str, Any]) -> list[str]:
    """Which weights the checkpoint did not supply and why, by the names that they have in it or would have."""
    why = "drawn anew, or not in the checkpoint" if _redraws(plan["strategy"]) else "not in the checkpoint"
    dropped = {name: f"drawn anew: {reason}" for name, reason in plan.get("dropped", {}).items()}
    lines = []
    for group in plan["groups"]:
        names: dict[str, list[str]] = {}
        for name in map(plain_name, group["new"]):
            names.setdefault(dropped.get(name, why), []).append(name)
        lines += [f"* new in {group['name']} ({reason}): {_names(own)}" for reason, own in names.items()]
    return lines


def _redraws(strategy: Any) -> bool:
    while isinstance(strategy, Mapping):
        if strategy.get("name") == "reinitialised":
            return True
        strategy = strategy.get("base")
    return False


def _wrapped(line: str, width: int) -> str:
    return textwrap.fill(line, width, subsequent_indent=" " * 13, break_long_words=False, break_on_hyphens=False)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _span(part: Mapping[str, Any]) -> str:
    """The first and the last step; ``to`` is one past it."""
    return f"{part['from']}-{part['to'] - 1}"


def _print_phases(plan: Mapping[str, Any]) -> None:
    order = [group["name"] for group in plan["groups"]]
    rows = [
        (_span(phase), phase["starts"] if phase["starts"] != f"step {phase['from']}" else "", _run_of(phase, order))
        for phase in plan["phases"]
    ]
    if not any(row[1] for row in rows):
        print_table(("steps", "trains"), [(row[0], row[2]) for row in rows], right=(0,))
        return
    print_table(("steps", "starts", "trains"), rows, right=(0,))


def _run_of(phase: Mapping[str, Any], order: Sequence[str]) -> str:
    """``layer.3 .. layer.5, head``: neighbours in the model's order as a range."""
    places = sorted(order.index(name) for name in phase["trains"])
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    parts = [order[run[0]] if len(run) == 1 else f"{order[run[0]]} .. {order[run[-1]]}" for run in runs]
    return ", ".join(parts) or "nothing"


def _difficulty(plan: Mapping[str, Any]) -> list[str]:
    """What a curriculum ranks by, and where it knows that from."""
    found = plan.get("difficulty")
    if not found:
        return []
    order = {"random": "random (the control arm) in place of"}.get(
        found["order"], f"{found['order'].replace('_', ' ')} by"
    )
    pacing = found["pacing"]
    return [
        f"  curriculum {order} {found['name']}, {found['scores']}",
        f"  pacing     {pacing['pacing']}, from {pacing['start']:.4g} of the examples to all at {pacing['until']}",
    ]


def _print_curriculum(plan: Mapping[str, Any]) -> None:
    """What may be drawn when; with how difficult that is, where it is known before the run."""
    points = plan["curriculum"]
    if len(points) > 8:
        points = [points[round(at * (len(points) - 1) / 7)] for at in range(8)]
    rows = [
        (
            str(point["step"]),
            f"{point['share']:.0%}",
            count(point["visible"]),
            *(f"{value:.3g}" for value in point.get("difficulty", ())),
        )
        for point in points
    ]
    columns = ("at step", "share", "examples that may be drawn", "lowest", "median", "highest")
    width = max(map(len, rows))
    rows = [(*row, *[""] * (width - len(row))) for row in rows]
    print_table(columns[:width], rows, right=tuple(range(width)))


def _foot(plan: Mapping[str, Any]) -> list[str]:
    memory = {name: size(value) for name, value in plan["memory"].items()}
    steps = plan["evaluations"]
    shown = ", ".join(map(str, steps[:8])) + (f" .. {steps[-1]}" if len(steps) > 8 else "")
    parts = ", ".join(f"{name} {memory[name]}" for name in memory if name != "total")
    return [
        f"evaluates {len(steps)} times, after steps {shown}" if len(steps) > 1 else f"evaluates after step {shown}",
        f"memory about {memory['total']} a process: {parts}",
        *_cached(plan),
        f"digest {plan['digest']}",
    ]


def _cached(plan: Mapping[str, Any]) -> list[str]:
    """What becomes of frozen layers, where there are any."""
    cached = plan.get("cached") or {}
    if not cached or all(group["trains"] and group["trains"][0]["from"] == 0 for group in plan["groups"]):
        return []
    if cached["where"] == "off":
        return [f"frozen layers are computed each time: {cached['why']}"]
    kept = {boundary["after"]: size(boundary["bytes"]) for boundary in cached["boundaries"]}
    shown = ", ".join(f"{amount} after {block}" for block, amount in list(kept.items())[:4])
    more = f" and {len(kept) - 4} more" if len(kept) > 4 else ""
    where = {"memory": "in memory", "disk": "on disk"}[cached["where"]]
    splits = " and ".join(cached["splits"])
    return [f"frozen layers are computed once for {splits} and kept {where}: {shown}{more}; {cached['why']}"]
