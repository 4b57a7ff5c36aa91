"""The panels of a plan's picture that show numbers over the steps: learning rates and momenta."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELS = 14  # in a legend: the groups of a model of twelve blocks
_FEW_STEPS = 100  # up to here each update is drawn as the step that it is
_SPREAD = 5  # from here on, the ratio of two peaks asks for a logarithmic axis

_PART = re.compile(r"(embeddings|layer\.\d+|head)(?=\.)")

Course = tuple[float, ...]


def draw_rates(axes: Axes, plan: Mapping[str, Any], shades: Mapping[str, Any]) -> None:
    """One line per course: groups whose rates are equal at every point share it. A dot is where a group joins."""
    courses = _courses(plan["curve"], "lr", shades)
    lines = [
        _draw_course(
            axes,
            plan,
            plan["curve"],
            course,
            color=shades[names[-1]],
            label=_label(names, list(shades)),
            linestyle="-." if all(map(_part_of, names)) else "-",  # layer.3.B beside layer.3, of nearly its colour
        )
        for course, names in courses.items()
    ]
    for group in plan["groups"]:
        joins = [(part["from"], part["lr_start"]) for part in group["trains"][:1] if part["from"] > 0]
        for step, rate in joins:
            axes.plot(step, rate, marker="o", markersize=4.5, color=shades[group["name"]], zorder=4)
    shown = _thinned(lines)
    values = [value for course in courses for value in course]
    if plan["plateau"]:
        shown.append(_draw_plateau(axes, plan, shades))
        values += [rate for point in plan["plateau"]["curve"] for rate in point["lr"].values()]
    axes.set_ylabel("learning rate")
    _scale(axes, plan, values)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(handles=shown[::-1], fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0)


def draw_momenta(axes: Axes, plan: Mapping[str, Any], shades: Mapping[str, Any]) -> None:
    """The momentum, where a schedule sets one."""
    courses = _courses(plan["curve"], "momentum", shades)
    for course, names in courses.items():
        color = shades[names[-1]] if len(courses) > 1 else "0.3"
        _draw_course(axes, plan, plan["curve"], course, color=color, label="")
    axes.set_ylabel("momentum")
    axes.grid(alpha=0.25, linewidth=0.6)


def _courses(points: Sequence[Mapping[str, Any]], key: str, names: Iterable[str]) -> dict[Course, list[str]]:
    """The groups by their course; NaN where a group has none, at every point: a group that does not appear."""
    found: dict[tuple[float | None, ...], list[str]] = {}
    for name in names:
        course = tuple(point[key].get(name) for point in points)
        if any(value is not None for value in course):
            found.setdefault(course, []).append(name)
    nan = float("nan")
    return {tuple(nan if value is None else value for value in course): names for course, names in found.items()}


def _draw_course(
    axes: Axes,
    plan: Mapping[str, Any],
    points: Sequence[Mapping[str, Any]],
    course: Course,
    *,
    color: Any,
    label: str,
    **line: Any,
) -> Any:
    """An update's value holds until the next update, the last one's to the end."""
    steps = [*(point["step"] for point in points), plan["total_steps"]]
    style = "steps-post" if plan["total_steps"] <= _FEW_STEPS else "default"
    line = {"linewidth": 1.6, **line}
    (drawn,) = axes.plot(steps, [*course, course[-1]], color=color, label=label, drawstyle=style, **line)
    return drawn


def _draw_plateau(axes: Axes, plan: Mapping[str, Any], shades: Mapping[str, Any]) -> Any:
    """The course of a score that never improves."""
    from matplotlib.lines import Line2D

    points = plan["plateau"]["curve"]
    for course, names in _courses(points, "lr", shades).items():
        _draw_course(axes, plan, points, course, color=shades[names[-1]], label="", linewidth=1.0, linestyle="--")
    return Line2D([], [], color="0.3", linewidth=1.0, linestyle="--", label="if the score\nnever improves")


def _label(names: Sequence[str], order: Sequence[str]) -> str:
    """``layer.3 .. layer.8`` for neighbours, also among the same parts of layers, else the first few names."""
    alike = [name for name in order if _part_of(name) == _part_of(names[0])]
    if len(names) > 2 and any(list(names) == kind[kind.index(names[0]) :][: len(names)] for kind in (alike, order)):
        return f"{names[0]} .. {names[-1]}"
    return ", ".join(names[:3]) + (f"\nand {len(names) - 3} more" if len(names) > 3 else "")


def _part_of(name: str) -> str:
    """``.B`` of ``layer.3.B``; nothing of a group that is no part of a layer."""
    return _PART.sub("", name) if _PART.match(name) else ""


def _thinned(lines: Sequence[Any]) -> list[Any]:
    """At most so many, evenly, with the first and the last; the bars below name every group."""
    if len(lines) <= _MOST_LABELS:
        return list(lines)
    return [lines[round(at * (len(lines) - 1) / (_MOST_LABELS - 1))] for at in range(_MOST_LABELS)]


def _scale(axes: Axes, plan: Mapping[str, Any], values: Sequence[float]) -> None:
    """A logarithmic axis where a straight one would press courses flat."""
    peaks = [part["lr_peak"] for group in plan["groups"] for part in group["trains"] if part["lr_peak"] > 0]
    positive = [value for value in values if value > 0]
    low = [value for value in positive if value < 0.03 * max(positive)]
    if peaks and (max(peaks) > _SPREAD * min(peaks) or 4 * len(low) > len(positive)):
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(max(min(positive), min(peaks) / 100) / 1.5, 1.5 * max(peaks))
        return
    axes.set_ylim(0, 1.06 * max(positive) if positive else 1.0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
