"""The reports of a comparison: tables and sentences as Markdown and as one HTML file that opens offline."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..checkpoints.atomic import write_file_atomically
from ..wording import count, number, size

MARKDOWN, PAGE, PICTURE = "compare.md", "compare.html", "pareto.png"
_COSTS = {"seconds": "time", "trained": "parameters"}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left } th { border-bottom: 2px solid #888 } img { max-width: 100% }
"""


class Table(NamedTuple):
    """Cells as text; the first column is words, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def tables(document: Mapping[str, Any]) -> list[Table]:
    """Scores, costs, and every run."""
    rows, first = document["summary"]["rows"], document["compared"][0]
    metric, split = document["metric"], document["split"]
    return [
        Table(
            f"{metric} on {split}",
            ("cell", "runs", "mean", "sd", "95 % interval", f"less {first}", "95 % interval", "p", "verdict"),
            [_score_cells(row) for row in rows],
        ),
        Table(
            "cost of a run",
            ("cell", "failed", "seconds", "memory", "trained", "of all", "steps", "best for its"),
            [_cost_cells(row) for row in rows],
        ),
    ]


def run_table(document: Mapping[str, Any]) -> Table:
    """The score of every run."""
    rows = []
    for name in document["compared"]:
        runs = document["cells"][name]["runs"]
        rows.append((name, *(_run_cell(runs.get(str(seed), {})) for seed in document["seeds"])))
    return Table("every run, by seed", ("cell", *map(str, document["seeds"])), rows)


def _score_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    found = row["difference"]
    own = (row["cell"], str(row["runs"]), _number(row["mean"]), _number(row["sd"]), _range(row["low"], row["high"]))
    if found is None:
        return *own, "", "", "", ""
    difference = "-" if math.isnan(found["mean"]) else f"{found['mean']:+.4f}"
    return *own, difference, _range(found["low"], found["high"], sign="+"), _p(found["p_holm"]), found["verdict"]


def _cost_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    share = row["trained"] / row["parameters"]
    return (
        row["cell"],
        f"{row['failed']} of {row['runs'] + row['without_score']}",
        "-" if math.isnan(row["seconds"]) else f"{row['seconds']:.1f}",
        "-" if row["peak_bytes"] is None else size(row["peak_bytes"]),
        count(row["trained"]),
        f"{share:.1%}" if share >= 0.0005 else "< 0.1%",
        count(row["steps"]),
        ", ".join(_COSTS[cost] for cost in row["pareto"]),
    )


def _run_cell(run: Mapping[str, Any]) -> str:
    return _number(run["score"]) if "score" in run else run.get("ended", "")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else number(value)


def _range(low: float, high: float, *, sign: str = "") -> str:
    return "-" if math.isnan(low) else f"{low:{sign}.4f} .. {high:{sign}.4f}"


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def write_reports(document: Mapping[str, Any], root: Path) -> None:
    """Write the Markdown, the picture and the page."""
    from .plot import draw

    draw(document, root / PICTURE)
    write_file_atomically(root / MARKDOWN, markdown(document).encode())
    write_file_atomically(root / PAGE, page(document, (root / PICTURE).read_bytes()).encode())


def notes(document: Mapping[str, Any]) -> list[str]:
    """What the columns mean."""
    first = document["compared"][0]
    better = "higher" if document["direction"] == "maximize" else "lower"
    return [
        f"Runs of one seed are pairs: they see the same order of the data. A {better} {document['metric']} is better. "
        f"Intervals are bootstrap percentiles over seeds; p is that of the paired difference from {first} by all "
        "flips of sign, after Holm's correction for the number of comparisons.",
        "failed: ended without a score, or no better than one guess for all. best for its time (or parameters): no "
        "other cell has a better mean for as little.",
    ]


def markdown(document: Mapping[str, Any]) -> str:
    """The report for a repository or an issue."""
    parts = ["# Comparison", *(f"- {line}" for line in document["summary"]["said"]), ""]
    for table in [*tables(document), run_table(document)]:
        parts += [f"## {table.title}", "", _markdown_row(table.columns)]
        parts += [_markdown_row([":--", *["--:"] * (len(table.columns) - 1)])]
        parts += [*map(_markdown_row, table.rows), ""]
    return "\n".join([*parts, f"![score by cost]({PICTURE})", "", *notes(document), ""])


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def page(document: Mapping[str, Any], picture: bytes) -> str:
    """The same as one HTML file, the picture in it."""
    said = "".join(f"<li>{html.escape(line)}</li>" for line in document["summary"]["said"])
    parts = [f"<h1>Comparison</h1><ul>{said}</ul>"]
    for table in [*tables(document), run_table(document)]:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.columns)
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>\n" for row in table.rows)
        parts.append(f"<h2>{html.escape(table.title)}</h2><table><tr>{head}</tr>\n{rows}</table>")
    parts.append(f'<img alt="score by cost" src="data:image/png;base64,{base64.b64encode(picture).decode()}">')
    parts += [f"<p>{html.escape(line)}</p>" for line in notes(document)]
    head = f'<meta charset="utf-8"><title>Comparison</title><style>{_STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>\n"
