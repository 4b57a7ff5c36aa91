"""A search as two pictures: what each trial came to, and which values matter."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..checkpoints.atomic import write_file_atomically
from ..pictures import MARK, blank, styled, write
from .results import Trial, TuneResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_COLOURS = 6
_MOST_LETTERS = 44


def draw(result: TuneResult) -> None:
    """Writes ``history.svg``, and ``importances.svg`` where there are enough trials to say."""
    with styled():
        _write(history_of(result), result, "history.svg")
        if result.importances:
            _write(importances_of(result), result, "importances.svg")


def _write(figure: Figure, result: TuneResult, name: str) -> None:
    content = io.BytesIO()
    write(figure, content, kind="svg")
    write_file_atomically(result.folder / name, content.getvalue())


def history_of(result: TuneResult) -> Figure:
    """The value of each trial in the order in which they began, and the best so far."""
    from matplotlib.ticker import MaxNLocator

    figure = blank(7.5, 3.6)
    axes = figure.subplots()
    by, groups = _grouped(result.complete)
    for colour, (label, trials) in zip(_colours(len(groups)), groups.items(), strict=True):
        spreads = [0.0 if math.isnan(trial.spread) else trial.spread for trial in trials]
        axes.errorbar(
            [trial.number for trial in trials],
            [trial.value for trial in trials],
            yerr=spreads if any(spreads) else None,
            fmt="o",
            markersize=5,
            color=colour,
            ecolor="0.75",
            label=label or "complete",
        )
    pruned = [trial for trial in result.trials if trial.ended == "pruned" and not math.isnan(trial.value)]
    if pruned:
        where = [trial.number for trial in pruned], [trial.value for trial in pruned]
        axes.plot(*where, "x", markersize=5, color="0.6", label="pruned, as far as it came")
    _draw_lost(axes, result)
    _draw_best(axes, result)
    axes.set_xlabel("trial")
    axes.set_ylabel(result.metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(-0.6, max(len(result.trials), 2) - 0.4)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda at: (labels[at] not in groups, at))  # the groups first
    figure.legend(
        [handles[at] for at in order],
        [_short(labels[at]) for at in order],
        loc="outside right upper",
        title=by or None,
        fontsize="small",
        alignment="left",
    )
    seeds = max((len(trial.scores) for trial in result.complete), default=1)
    shown = f"mean and standard deviation of {seeds} seeds" if seeds > 1 else "one run each"
    axes.set_title(f"validation {result.metric}, {shown}", loc="left", fontsize="medium")
    return figure


def _draw_best(axes: Axes, result: TuneResult) -> None:
    better = max if result.direction == "maximize" else min
    done = sorted(result.complete, key=lambda trial: trial.number)
    if not done:
        return
    best = list(itertools.accumulate((trial.value for trial in done), better))
    steps = [*(trial.number for trial in done), len(result.trials) - 0.5]
    axes.step(steps, [*best, best[-1]], where="post", color=MARK, linewidth=1.3, zorder=1, label="best so far")


def _draw_lost(axes: Axes, result: TuneResult) -> None:
    """Ticks at the foot for what has no value."""
    lost = [trial.number for trial in result.trials if trial.ended in ("failed", "diverged")]
    if lost:
        foot = axes.get_xaxis_transform()
        axes.plot(lost, [0.02] * len(lost), "|", color="black", transform=foot, label="failed or diverged")


def _grouped(trials: Sequence[Trial]) -> tuple[str, dict[str, list[Trial]]]:
    """The trials by the value that splits them best to look at: the strategy, or the first choice among words."""
    paths = [path for trial in trials for path, value in trial.values.items() if isinstance(value, str)]
    for path in sorted(dict.fromkeys(paths), key=lambda path: path != "strategy"):
        found: dict[str, list[Trial]] = {}
        for trial in trials:
            found.setdefault(str(trial.values.get(path, "")), []).append(trial)
        if 1 < len(found) <= _MOST_COLOURS:
            return path, dict(sorted(found.items()))
    return "", {"": list(trials)} if trials else {}


def _short(label: str) -> str:
    """A component that shares its name with another is called by all of its values, which may be many."""
    return label if len(label) <= _MOST_LETTERS else f"{label[: _MOST_LETTERS - 1]}…"


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](0.85 * at / max(1, count - 1)) for at in range(count)]


def importances_of(result: TuneResult) -> Figure:
    """A bar for each path: its share of the variance between trials."""
    shares = sorted(result.importances.items(), key=lambda item: item[1])
    figure = blank(6.5, 0.9 + 0.32 * len(shares))
    axes = figure.subplots()
    axes.barh([name for name, _ in shares], [share for _, share in shares], color="#3b6f8f", height=0.6)
    for at, (_, share) in enumerate(shares):
        axes.text(share + 0.01, at, f"{share:.0%}", va="center", fontsize="small", color="0.3")
    axes.set_xlim(0, 1.08)
    axes.set_xlabel(f"share of the variance of {result.metric}")
    axes.tick_params(axis="y", length=0)
    axes.set_title(f"what matters, from {len(result.complete)} complete trials", loc="left", fontsize="medium")
    return figure
