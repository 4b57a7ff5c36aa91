"""Measure ourselves beside our peers, and write the table: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .definition import Row
from .measuring import measure_row, skipped
from .report import write
from .rounds import Rounds
from .rows import ROWS, row_named

_HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    """Run the rows that were asked for and write the report."""
    options = _parser().parse_args(arguments)
    if options.list:
        _list()
        return 0
    rows = _chosen(options.rows, quick=options.quick)
    rounds = Rounds(options.json)
    if options.fresh:
        options.json.unlink(missing_ok=True)
        rounds = Rounds(options.json)
    began = time.monotonic()
    for row in rows:
        reason = skipped(row)
        if reason:
            say(f"{row.name}: skipped, {reason}")
        elif not row.takes_from:
            measure_row(row, rounds, root=options.root, count=options.rounds, quick=options.quick, say=say)
            write(options.output, rounds)  # after every row: an interrupted table is still a table
    write(options.output, rounds)
    say(f"{time.monotonic() - began:.0f} s; the table is in {options.output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the MiniLM rows against Trainer, in under ten minutes")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these (see --list)")
    parser.add_argument("--rounds", type=int, default=3, help="that count, after one that warms up (default 3)")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/rounds.jsonl"), metavar="FILE")
    parser.add_argument("--output", type=Path, default=_HERE / "RESULTS.md", metavar="FILE")
    parser.add_argument("--root", type=Path, default=Path("runs/benchmarks"), help="models and data are made there")
    parser.add_argument("--fresh", action="store_true", help="forget the rounds that --json holds")
    parser.add_argument("--list", action="store_true", help="show rows and contenders, and measure nothing")
    return parser


def _chosen(names: list[str] | None, *, quick: bool) -> list[Row]:
    if not names:
        return [row for row in ROWS if (row.quick if quick else row.default)]
    rows: list[Row] = []
    for name in names:
        row = row_named(name)
        rows += [row_named(row.takes_from), row] if row.takes_from else [row]
    return list(dict.fromkeys(rows))


def _list() -> None:
    for row in ROWS:
        marks = " ".join(mark for mark, there in (("quick", row.quick), ("cuda", row.needs_cuda)) if there)
        print(f"{row.name:24} {row.title}{f'  [{marks}]' if marks else ''}")
        for contender in row.contenders:
            reason = skipped(row, contender)
            print(f"{'':26}{contender.name}{f'  (skipped: {reason})' if reason else ''}")


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
