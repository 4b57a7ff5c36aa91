"""The pictures of commands: nothing is cut off, nothing lies on anything else, equal content gives equal bytes."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from finetune.comparing import plot
from finetune.errors import ConfigError
from finetune.pictures import blank, check_plot_file, styled, write_plot
from finetune.tuning import plots
from finetune.tuning.results import Trial, TuneResult


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.gif", "end the name in one of '.png', '.svg', '.pdf'"), ("no/x.png", "the folder .*no does not exist")],
)
def test_a_file_that_cannot_be_drawn_is_refused(tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        check_plot_file(tmp_path / name)
    for kind in ("png", "svg", "pdf"):
        check_plot_file(tmp_path / f"x.{kind}")


def test_a_file_that_cannot_be_written_is_a_users_mistake(tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(ConfigError, match="--plot .*x.png: .*Give a file that can be written"):
        write_plot(blank(2, 2), tmp_path / "x.png")


def comparison(count: int):
    """Cells with long names; every fourth costs the same parameters, and one has no score."""
    names = [f"gradual_unfreeze-warmup_cosine-{number}" for number in range(count)]
    rows, cells = [], {}
    for number, name in enumerate(names):
        middle = math.nan if number == 3 else 0.5 + 0.01 * number
        runs = {} if number == 3 else {str(seed): {"score": middle + 0.01 * seed} for seed in (-1, 0, 1)}
        cells[name] = {"runs": runs}
        rows.append({"cell": name, "mean": middle, "low": middle - 0.01, "high": middle + 0.01, "pareto": [],
                     "seconds": 15.0 * (number + 1), "trained": 1000 * 4 ** (number % 4)})  # fmt: skip
    return {"summary": {"rows": rows}, "cells": cells, "seeds": [-1, 0, 1], "metric": "accuracy", "split": "test"}


@pytest.mark.parametrize("count", [2, 9, 24])
def test_of_a_comparison_every_cell_is_seen_and_named(count):
    document = comparison(count)
    with styled():
        figure = plot.figure_of(document)
        figure.draw_without_rendering()
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert [name.partition(" ")[0] for name in named] == list(document["cells"])
    assert [name for name in named if "(no score)" in name] == named[3:4]
    assert _lies_in(legend.get_window_extent(), figure.bbox)
    for axes in figure.axes:
        labels = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        shown = [box for box in labels if axes.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1 + 1]
        assert len(shown) >= 2
        assert not any(a.overlaps(b) for a, b in itertools.combinations(shown, 2))
        means = [line for line in axes.get_lines() if line.get_markersize() == 7 and len(line.get_xdata())]
        places = [tuple(line.get_transform().transform((line.get_xdata()[0], line.get_ydata()[0]))) for line in means]
        assert len(places) == count - (count > 3) and all(axes.bbox.contains(*place) for place in places)
        assert all(math.dist(a, b) > 8 for a, b in itertools.combinations(places, 2))


def _lies_in(inner, outer) -> bool:
    return inner.x0 >= outer.x0 and inner.x1 <= outer.x1 and inner.y0 >= outer.y0 and inner.y1 <= outer.y1


def test_of_a_search_long_names_leave_room_for_its_trials():
    strategies = ["full", '{"name": "lora", "rank": 8, "alpha": 16, "targets": ["query", "key", "value"]}']
    trials = tuple(
        Trial(at, Path(), "complete", {"strategy": strategies[at % 2]}, 0.5, (0.5,), (), 1.0, 1, "") for at in range(6)
    )
    with styled():
        figure = plots.history_of(TuneResult(Path(), "accuracy", "maximize", trials, 6, {}))
        figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    assert axes.bbox.width > 0.45 * figure.bbox.width and _lies_in(legend.get_window_extent(), figure.bbox)
