"""A range test as a picture: the losses over the learning rate, and where the suggestion is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..lr_finding.sweep import smoothed
from ..pictures import MARK, blank, styled, write_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..lr_finding.finding import Finding

_SHADE = "#3b528b"


def draw(finding: Finding, path: Path, *, title: str) -> None:
    """Draws it into ``path``."""
    with styled():
        write_plot(figure_of(finding, title=title), path)


def figure_of(finding: Finding, *, title: str) -> Figure:
    """Every loss as a dot, a line for each repeat's running mean, and the fitted course with its slope below."""
    figure = blank(7, 4.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _draw_losses(above, finding)
    _draw_slopes(below, finding)
    for axes in (above, below):
        axes.set_xscale("log")
        axes.grid(alpha=0.25, linewidth=0.6)
        if finding.suggestion is not None:
            axes.axvline(finding.suggestion, color=MARK, linewidth=1.2, linestyle="-" if not finding.doubts else ":")
    below.set_xlabel("optimizer.lr")
    above.legend(fontsize="small", loc="lower left")
    figure.align_ylabels()
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    above.set_title(_subtitle(finding), loc="left", fontsize="small", color="0.3")
    return figure


def _draw_losses(axes: Axes, finding: Finding) -> None:
    for number, curve in enumerate(finding.curves):
        named = number == 0
        axes.plot(
            curve.lrs,
            curve.losses,
            ".",
            markersize=3,
            color=_SHADE,
            alpha=0.3,
            label="loss of an update" if named else None,
        )
        mean = smoothed(curve.losses, finding.sweep.smoothing)
        axes.plot(curve.lrs, mean, color=_SHADE, alpha=0.45, linewidth=0.8, label="running mean" if named else None)
    if finding.fitted is not None:
        axes.plot(finding.fitted.lrs, finding.fitted.losses, color=_SHADE, linewidth=2, label="fit")
    axes.set_ylabel("training loss")
    seen = np.concatenate([curve.losses for curve in finding.curves])
    if len(seen):
        start = float(np.mean([curve.losses[:10].mean() for curve in finding.curves if len(curve.losses)]))
        low = float(seen.min())
        height = max(start - low, 1e-3 * abs(start) + 1e-12)
        axes.set_ylim(low - 0.08 * height, start + 0.6 * height)  # what comes after the rise says nothing


def _draw_slopes(axes: Axes, finding: Finding) -> None:
    axes.set_ylabel("change\nper decade")
    if finding.fitted is None:
        return
    lrs, _, slopes, errors = finding.fitted
    axes.fill_between(lrs, slopes - errors, slopes + errors, color=_SHADE, alpha=0.2, linewidth=0)
    axes.plot(lrs, slopes, color=_SHADE, linewidth=1.4)
    axes.axhline(0, color="0.6", linewidth=0.6)
    low = float((slopes - errors).min())
    axes.set_ylim(1.15 * min(low, -1e-6), 0.6 * abs(min(low, -1e-6)))


def _subtitle(finding: Finding) -> str:
    if finding.suggestion is None:
        return "no suggestion"
    told = f"suggestion: {' '.join(finding.overrides)}"
    return told if not finding.doubts else f"{told} (not reliable)"
