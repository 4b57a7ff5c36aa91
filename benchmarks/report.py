"""RESULTS.md: written by the program, from the file of rounds."""

from __future__ import annotations

import math
from pathlib import Path

from .definition import OURS, Row, Target
from .machine import described, library_versions
from .results import Results, judged
from .rounds import Rounds
from .rows import ROWS

_RULES = """\
## Rules

- One process, no accumulation, one update of `batch_size` examples; each contender of a row runs in a process of its
  own, in turns (A B A B …), after one round that is thrown away; each process warms up before its clock starts.
- Same weights (one folder for all), same examples per update and, where a window of updates is timed, the same order
  of them; same optimizer (AdamW), rates, decay, clipping, schedule and number format; logging every 10 updates on all
  sides; no saving inside the time. Whole runs are timed without logs, from the loaded model and the prepared data to
  the result: trial forwards, caches and all evaluations count. No cache outlives a process.
- Everything else of a peer is its default, unless its name says otherwise. *Best flags* are grouping by length,
  padding to a multiple of 8, fused AdamW, no NaN filter; such a sampler chooses its own order, so it does one epoch
  over exactly the examples of the window.
- Weights are random, from configs, as throughput does not depend on them. Lengths are drawn from histograms of real
  data sets (`token_lengths.json`), words by Zipf's law; pictures are smooth noise.
- *Useful* tokens are those that are not padding. The share of the peak is the arithmetic of useful tokens (forward and
  backward, nothing deducted for what is skipped), divided by time and by the fastest square product that the same
  process measured.
- A value is the median of the rounds, with the least and the most; a ratio is that of medians.
- Memory is the peak of the process during the work, above what it held when model and data were loaded.
- Equality: 20 updates without dropout in fp32, fast, plain (every part of `speed` off), and in a plain loop over the
  library's own model with padding; the largest relative difference of the losses must be below 1e-4.
"""


def write(path: Path, rounds: Rounds) -> None:
    """Write the report of all rows that are measured, and name those that are not."""
    found = [Results.of(row, rounds) for row in ROWS]
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    lines = ["# Results", "", "Written by `python -m benchmarks`; the next run writes it anew.", ""]
    lines += [f"Machine: {described()}.", "", f"Versions: {versions}.", "", *_summary(found)]
    for results in found:
        if results.records:
            lines += ["", *_detail(results)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, "", _RULES]), encoding="utf-8")


def _summary(found: list[Results]) -> list[str]:
    """One line for each target of each row."""
    lines = ["| row | against | must reach | aim | measured | verdict | equality |", "|---|---|---|---|---|---|---|"]
    for results in found:
        row = results.row
        if not row.default and not results.records:
            continue
        for number, target in enumerate(row.targets):
            outcome = judged(results, target)
            title = f"[{row.title}](#{row.name})" if results.records else row.title
            cells = [
                title if number == 0 else "",
                "a bound" if target.against == OURS else target.against,
                _bound(target, row, target.must),
                "" if target.aim is None else _bound(target, row, target.aim),
                "" if outcome.measured is None else _measured(target, row, outcome.measured),
                outcome.verdict,
                results.equality() if number == 0 else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _detail(results: Results) -> list[str]:
    """The table of one row, and what a reader must know of it."""
    row = results.row
    lines = [f"<a id='{row.name}'></a>", f"### {row.title}", "", f"`python -m benchmarks --rows {row.name}`", ""]
    lines += ["| contender | median | least to most | of ours | useful tokens/s | share of peak | memory |"]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [_contender(results, contender.name) for contender in results.source.contenders]
    peak = results.median(OURS, "peak_flops")
    notes = [
        f"Matrix-product peak {peak / 1e9:,.0f} GFLOP/s." if peak else "",
        "Measured with another state of the library than the present one." if results.is_older else "",
        row.note,
        f"What bounds it: {row.bound}" if row.bound else "",
    ]
    text = " ".join(note for note in notes if note)
    return [*lines, "", text] if text else lines


def _contender(results: Results, name: str) -> str:
    unit = results.row.unit
    values, ours = results.values(name), results.median(OURS)
    median = results.median(name)
    if median is None:
        return f"| {name} | {results.missing(name)} | | | | | |"
    ratio = f"{median / ours:.2f}x" if ours and ours > 0 and name != OURS else ""
    tokens, share = results.median(name, "tokens_per_second"), results.median(name, "share_of_peak")
    memory = results.median(name, "memory")
    cells = [
        name,
        shown(median, unit),
        f"{shown(min(values), unit)} to {shown(max(values), unit)} ({len(values)} rounds)",
        ratio,
        f"{tokens:,.0f}" if tokens else "",
        f"{share:.0%}" if share else "",
        shown(memory, "bytes") if memory else "",
    ]
    return f"| {' | '.join(cells)} |"


def _bound(target: Target, row: Row, value: float) -> str:
    if target.kind in ("times", "share"):
        return f"{'' if target.kind == 'times' else '<= '}{value:g}x"
    return f"{'<=' if target.kind == 'most' else '>='} {shown(value, row.unit)}"


def _measured(target: Target, row: Row, value: float) -> str:
    if target.kind in ("times", "share"):
        return "nothing left to compare" if math.isinf(value) else f"{value:.2f}x"
    return shown(value, row.unit)


def shown(value: float, unit: str) -> str:
    """A number with its unit."""
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    if unit == "share":
        return f"{value:.1%}"
    if unit == "us":
        return f"{value:,.0f} us"
    return f"{value:.3f} s" if value < 10 else f"{value:.1f} s"
