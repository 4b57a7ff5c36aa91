"""The plan of a run as a picture: the learning rate of each group over the steps, and what trains when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pictures import MARK, blank, styled, write_plot
from .plan_rates import draw_momenta, draw_rates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FEW_GROUPS = 16  # whose bars may be wide
_MOST_MARKS = 60  # evaluations; more would be one bar


def draw(plan: Mapping[str, Any], path: Path, *, title: str) -> None:
    """Draws the document of ``plan_run`` into ``path``."""
    with styled():
        write_plot(figure_of(plan, title=title), path)


def figure_of(plan: Mapping[str, Any], *, title: str) -> Figure:
    """The picture: rates, momenta where a schedule sets them, who trains when, and what a curriculum shows."""
    from matplotlib.ticker import MaxNLocator

    shades = _shades(plan)
    panels: list[tuple[float, Callable[[Axes, Mapping[str, Any], Mapping[str, Any]], None]]] = [(3.2, draw_rates)]
    if any(point["momentum"] for point in plan["curve"]):
        panels.append((1.1, draw_momenta))
    panels.append((0.5 + len(shades) * (0.2 if len(shades) <= _FEW_GROUPS else 0.15), _draw_spans))
    if plan.get("curriculum"):
        panels.append((1.1, _draw_curriculum))
    heights = [height for height, _ in panels]
    figure = blank(8, sum(heights) + 1.3)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for at, (_, drawn) in enumerate(panels):
        drawn(axes[at], plan, shades)
        for phase in plan["phases"][1:]:
            axes[at].axvline(phase["from"], color="0.85", linewidth=0.7, zorder=0)
    axes[-1].set_xlabel(f"step ({plan['steps_per_epoch']:,} per epoch)")
    axes[-1].set_xlim(0, plan["total_steps"])
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels()
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    axes[0].set_title(_subtitle(plan), loc="left", fontsize="small", color="0.3")
    return figure


def _subtitle(plan: Mapping[str, Any]) -> str:
    """``discriminative over lora, warmup_linear, adamw, 300,000 of 22,000,000 parameters train``."""
    names = (" over ".join(_chain(plan[part])) for part in ("strategy", "schedule", "optimizer"))
    trains = f"{plan['num_trained']:,} of {plan['num_parameters']:,} parameters train"
    return ", ".join([*filter(None, names), trains])


def _chain(part: Any) -> list[str]:
    """The names of a component and of what it holds; none of what is not shipped."""
    found = []
    while isinstance(part, Mapping) and "name" in part:
        found.append(str(part["name"]))
        part = part.get("base")
    return found


def _shades(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A colour for each group: from dark to light with depth, and one of its own for the head."""
    from matplotlib import colormaps

    names = [group["name"] for group in plan["groups"]]
    shades: dict[str, Any] = {
        name: colormaps["viridis"](0.82 * at / max(1, len(names) - 1)) for at, name in enumerate(names)
    }
    if len(names) > 1:
        shades[names[-1]] = MARK
    return shades


def _draw_spans(axes: Axes, plan: Mapping[str, Any], shades: Mapping[str, Any]) -> None:
    """A bar for each group over the steps in which it trains; pale where a plateau may let it begin sooner."""
    for at, group in enumerate(plan["groups"]):
        shade = shades[group["name"]]
        spans = [(part["from"], part["to"] - part["from"]) for part in group["trains"]]
        early = [
            (phase["earliest"], phase["from"] - phase["earliest"])
            for phase in plan["phases"]
            if phase["earliest"] < phase["from"] and group["name"] in phase["trains"]
        ]
        axes.broken_barh(early, (at - 0.38, 0.76), color=shade, alpha=0.3, linewidth=0)
        axes.broken_barh(spans, (at - 0.38, 0.76), color=shade, linewidth=0)
        if not spans and not early:
            axes.text(
                0.005, at, "frozen", transform=axes.get_yaxis_transform(), va="center", fontsize="small", color="0.55"
            )
    names = [group["name"] + (" *" if group["new"] else "") for group in plan["groups"]]
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_ylabel("trains")
    told = ["* has new weights"] if any(group["new"] for group in plan["groups"]) else []
    if any(phase["earliest"] < phase["from"] for phase in plan["phases"]):
        told.append("pale: sooner, if the score stops improving")
    if 0 < len(plan["evaluations"]) <= _MOST_MARKS:
        height = [len(names) - 0.4] * len(plan["evaluations"])
        axes.plot(plan["evaluations"], height, "v", markersize=4, color="0.3", clip_on=False)
        told.append("triangles: evaluations")
    axes.set_title("   ".join(told), loc="right", fontsize="x-small", color="0.35")


def _draw_curriculum(axes: Axes, plan: Mapping[str, Any], shades: Mapping[str, Any]) -> None:
    from matplotlib.ticker import PercentFormatter

    steps = [*(point["step"] for point in plan["curriculum"]), plan["total_steps"]]
    shares = [point["share"] for point in plan["curriculum"]]
    shares.append(shares[-1])
    axes.fill_between(steps, shares, step="post", color="0.88", linewidth=0)
    axes.step(steps, shares, where="post", color="0.3", linewidth=1.4)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("visible data")
