"""The plan of a run as a picture: the learning rate of each group over the steps, and what trains when."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..choices import listed
from ..errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FORMATS = ("png", "svg", "pdf")


def check_plot_file(path: Path) -> None:
    """Refuse, before anything is loaded, a file that cannot be drawn.

    Raises:
        ConfigError: Its ending is none that we draw, or its folder does not exist.
    """
    if path.suffix.removeprefix(".") not in _FORMATS:
        raise ConfigError(f"--plot {path}: end the name in one of {listed(f'.{name}' for name in _FORMATS)}.")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot {path}: the folder {path.parent} does not exist. Make it, or give another.")


def draw(plan: Mapping[str, Any], path: Path, *, title: str) -> None:
    """Draws the document of ``plan_run`` into ``path``."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = [group for group in plan["groups"]]
    colors = colormaps["viridis"]
    shades = {group["name"]: colors(0.9 * at / max(1, len(groups) - 1)) for at, group in enumerate(groups)}
    rows = 3 if plan.get("curriculum") else 2
    heights = [3.2, 0.25 * len(groups) + 0.5, 1.2][:rows]
    figure = Figure(figsize=(9, sum(heights) + 1.0), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the machine has
    axes = figure.subplots(rows, 1, sharex=True, height_ratios=heights)
    _draw_rates(axes[0], plan, shades)
    _draw_spans(axes[1], plan, shades)
    if rows == 3:
        _draw_curriculum(axes[2], plan)
    axes[-1].set_xlabel(f"step (of {plan['total_steps']:,}; {plan['steps_per_epoch']:,} per epoch)")
    axes[-1].set_xlim(0, plan["total_steps"])
    figure.suptitle(f"{title}: {plan['num_trained']:,} of {plan['num_parameters']:,} parameters train")
    try:
        figure.savefig(path, dpi=120, metadata=_no_date(path))
    except OSError as error:
        raise ConfigError(f"--plot {path}: {error.strerror or error}. Give a file that can be written.") from error


def _draw_rates(axes: Axes, plan: Mapping[str, Any], shades: Mapping[str, Any]) -> None:
    """One line per course: groups whose rates are equal at every point share it."""
    courses: dict[tuple[float | None, ...], list[str]] = {}
    for name in shades:
        course = tuple(point["lr"].get(name) for point in plan["curve"])
        if any(value is not None for value in course):
            courses.setdefault(course, []).append(name)
    steps = [point["step"] for point in plan["curve"]]
    for course, names in courses.items():
        label = names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}" if len(names) > 2 else ", ".join(names)
        values = [float("nan") if value is None else value for value in course]
        axes.plot(steps, values, color=shades[names[-1]], label=label, linewidth=1.6)
    axes.set_ylabel("learning rate")
    peaks = [part["lr_peak"] for group in plan["groups"] for part in group["trains"] if part["lr_peak"] > 0]
    if peaks and max(peaks) > 5 * min(peaks):
        # A head that trains ten times faster would press all others flat.
        axes.set_yscale("log")
        axes.set_ylim(min(peaks) / 100, 1.5 * max(peaks))
    else:
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.grid(alpha=0.25)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, reverse=True)


def _draw_spans(axes: Axes, plan: Mapping[str, Any], shades: Mapping[str, Any]) -> None:
    names = list(shades)
    for at, group in enumerate(plan["groups"]):
        spans = [(part["from"], part["to"] - part["from"]) for part in group["trains"]]
        axes.broken_barh(spans, (at - 0.4, 0.8), color=shades[group["name"]])
        if not spans:
            axes.annotate("frozen", (0, at), xytext=(4, 0), textcoords="offset points", va="center", color="0.5")
    for phase in plan["phases"][1:]:
        axes.axvline(phase["from"], color="0.7", linewidth=0.6)
    for step in plan["evaluations"] if len(plan["evaluations"]) <= 60 else ():
        axes.plot(step, len(names) - 0.3, marker="v", color="0.3", markersize=4, clip_on=False)
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.set_ylim(-0.6, len(names) - 0.1)
    axes.set_ylabel("trains")
    if plan["evaluations"]:
        axes.set_title("triangles: evaluations", fontsize="small", loc="right", color="0.3")


def _draw_curriculum(axes: Axes, plan: Mapping[str, Any]) -> None:
    steps = [*(point["step"] for point in plan["curriculum"]), plan["total_steps"]]
    shares = [point["share"] for point in plan["curriculum"]]
    axes.step(steps, [*shares, shares[-1]], where="post", color="0.3")
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("visible")
    axes.grid(alpha=0.25)


def _no_date(path: Path) -> dict[str, Any]:
    """The same plan gives the same file."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix, {})
