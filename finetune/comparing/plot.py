"""Score against cost: which cell is worth what it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pictures import blank, styled, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

_COSTS = {"seconds": "seconds of training", "trained": "trained parameters"}
_WIDTH, _MARKER, _LETTER = 8.0, 0.55, 0.075  # inches: of the picture, of a legend's marker and gap, of a letter
_APART, _SPREAD = 8.0, 30.0  # points: between cells of one cost, and between the outermost of them at most
_DOT: dict[str, Any] = {"markersize": 4, "alpha": 0.5, "markeredgewidth": 0}


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Draws the summary of a comparison into a file."""
    with styled():
        write(figure_of(document), path, kind="png")


def figure_of(document: Mapping[str, Any]) -> Figure:
    """A panel for each cost: means with their intervals, every run as a dot, and the line that none lies above."""
    from matplotlib import colormaps

    rows = document["summary"]["rows"]
    labels = [_label(row) for row in rows]
    columns = min(4, len(rows), max(1, int(_WIDTH / (_MARKER + _LETTER * max(map(len, labels))))))
    figure = blank(_WIDTH, 3.6 + 0.2 * math.ceil(len(rows) / columns))
    names = ("tab10", "tab20") if len(rows) <= 20 else ("viridis",)
    palette = colormaps[names[0] if len(rows) <= 10 else names[-1]]
    shades = [palette(at / (len(rows) - 1)) if len(rows) > 20 else palette(at) for at in range(len(rows))]
    panels = figure.subplots(1, len(_COSTS), sharey=True)
    for axes, cost in zip(panels, _COSTS, strict=True):
        _draw_panel(axes, document, shades, cost)
    panels[0].set_ylabel(f"{document['metric']} on {document['split']}")
    handles, _ = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize="small")
    return figure


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['cell']} (no score)" if math.isnan(row["mean"]) else str(row["cell"])


def _draw_panel(axes: Axes, document: Mapping[str, Any], shades: list[Any], cost: str) -> None:
    rows = document["summary"]["rows"]
    for row, shade in zip(rows, shades, strict=True):
        if math.isnan(row["mean"]):
            axes.plot([], [], "o", color=shade, label=_label(row))
            continue
        where = _beside(axes, rows, row, cost)
        runs = document["cells"][row["cell"]]["runs"]
        scores = [runs[str(seed)].get("score", math.nan) for seed in document["seeds"] if str(seed) in runs]
        axes.plot([row[cost]] * len(scores), scores, "o", **_DOT, color=shade, transform=where)
        if not math.isnan(row["low"]):
            axes.plot([row[cost]] * 2, [row["low"], row["high"]], color=shade, linewidth=1.4, transform=where)
        axes.plot([row[cost]], [row["mean"]], "o", markersize=7, color=shade, label=_label(row), transform=where)
        heights = [value for value in (*scores, row["low"], row["high"]) if not math.isnan(value)]
        axes.update_datalim([(row[cost], height) for height in heights])  # else what is moved aside is not counted
    best = sorted((row[cost], row["mean"]) for row in rows if cost in row["pareto"])
    if len(best) > 1:
        axes.step(*zip(*best, strict=True), where="post", color="0.6", linewidth=0.9, linestyle="--", zorder=0)
    _draw_costs(axes, [row[cost] for row in rows if row[cost] > 0], cost)
    axes.margins(0.08, 0.05)
    axes.autoscale_view()
    if cost == "seconds" and best:
        axes.set_title("dashed: no cell is better for as little", loc="left", fontsize="x-small", color="0.35")


def _beside(axes: Axes, rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any], cost: str) -> Transform:
    """Where a cell stands: next to the others that cost the same, which would lie on it."""
    from matplotlib.transforms import ScaledTranslation

    alike = [other["cell"] for other in rows if other[cost] == row[cost] and not math.isnan(other["mean"])]
    apart = min(_APART, _SPREAD / max(1, len(alike) - 1))
    points = (alike.index(row["cell"]) - (len(alike) - 1) / 2) * apart
    return axes.transData + ScaledTranslation(points / 72, 0, axes.figure.dpi_scale_trans)


def _draw_costs(axes: Axes, costs: Sequence[float], cost: str) -> None:
    """The axis of a cost, with labels that do not run into each other."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    spread = max(costs) / min(costs) if costs else 1.0
    if spread > 3:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if spread < 100 else (1.0,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    names = EngFormatter(sep="") if cost == "trained" else FuncFormatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_major_formatter(names)
    axes.set_xlabel(_COSTS[cost])
