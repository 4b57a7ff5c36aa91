"""The suggestion of ``find_lr`` beside the optimum of a grid.

    python -m benchmarks.reproductions.lr_find [--only NAME] [--json FILE]

With ``--only`` the other cases keep the rows that they have in ``RESULTS.md``: one alone takes some CPU minutes.

Every task is a recipe of the package with its own head-to-body ratio. The grid is ``optimizer.lr`` in half decades,
the mean of the seeds; the optimum is the highest accuracy (F1 of names) on the test split, and where several are
within one standard error of it, all of them are named. A suggestion is right where it is within a factor 3 of one of
these.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finetune import RunConfig, fit, running
from finetune.lr_finding import Sweep
from finetune.lr_finding.finding import find_lr

from . import signs

FACTOR = 3.0
LEAST = 3  # cases, of which this must hold
HEAD = ("task", "suggestion", "best rates of the grid", "factor", f"within {FACTOR:g}", "score in % by optimizer.lr")
ABOUT = """The suggestion of the default sweep (3 x 100 updates, docs/lr_find.md) beside a grid of whole runs with
`optimizer.lr` in half decades. Scores are on the test split (accuracy; F1 for names). The best mean comes first, then
every rate within one standard error of it, which the test split cannot tell from it. The factor is that to the nearest
of these. Two seeds in every cell, but for LoRA on the docstrings and for the names, which have one.

Reproduced means: at least three cases are within a factor 3, and every other says that it is not reliable."""


class Case(NamedTuple):
    """A recipe, and the grid around what it might need."""

    name: str
    recipe: str
    function: str
    grid: tuple[float, ...]
    seeds: tuple[int, ...] = (1, 2)
    overrides: tuple[str, ...] = ()


_HIGH = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
_LOW = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
CASES = (
    Case("digits, full", "vit_images", "full", _HIGH),
    Case("digits, LoRA", "vit_images", "lora", (*_HIGH, 3e-2)),
    Case("digits, head alone", "vit_images", "freeze", (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)),
    Case("digits, from scratch", "vit_images", "scratch", _HIGH),
    Case("topics of docstrings, full", "bert_text", "full", _LOW),
    Case("topics of docstrings, LoRA", "bert_text", "lora", _HIGH, seeds=(1,)),
    Case("names in docstrings, full", "bert_tokens", "full", _LOW, seeds=(1,)),
)


def main() -> None:
    """Run the cases, and put them into the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--json", type=Path, help="also write everything there")
    parser.add_argument("--out", type=Path, default=signs.RESULTS)
    words = parser.parse_args()
    began = time.process_time()
    found = []
    for case in (case for case in CASES if case.name.startswith(words.only)):
        found.append(measured(case))
        signs.told(f"| {' | '.join(row(found[-1]))} |")
        if words.json:
            words.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        signs.write("lr_find", section([row(one) for one in found], signs.section_of("lr_find", words.out)), words.out)
    print(f"{words.out}; {(time.process_time() - began) / 60:.0f} CPU minutes")


def section(rows: Sequence[Sequence[str]], before: str) -> str:
    """The table with these rows, and with those that it had of other cases; what both say together below it."""
    lines = (line for line in before.splitlines() if line.startswith("| "))
    known = {cells[0]: cells for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}
    known |= {cells[0]: list(cells) for cells in rows}
    ordered = [known[case.name] for case in CASES if case.name in known]
    missing = [case.name for case in CASES if case.name not in known]
    right = sum(cells[4] == "yes" for cells in ordered)
    told = sum(cells[4] == "no" and "not reliable" in cells[1] for cells in ordered)
    numbers = f"{right} of {len(ordered)} cases; of the others {told} said so: not reliable"
    claim = f"a suggestion is within a factor {FACTOR:g} of a grid's optimum, or says that it is not reliable"
    text = f"{ABOUT}\n\n{signs.table(HEAD, ordered)}\n\n"
    text += signs.sign(claim, holds=right + told == len(ordered) and right >= LEAST, numbers=numbers)
    return text + (f"\n\nNot measured: {'; '.join(missing)}." if missing else "")


def measured(case: Case) -> dict[str, Any]:
    """The suggestion and the grid of a case."""
    prepared = running.prepare(case.recipe, function=case.function, files=(), overrides=case.overrides)
    config = dataclasses.replace(prepared.config, output_dir=None)
    finding = find_lr(config, sweep=Sweep(), show="nothing")
    grid = {lr: [score(config, lr, seed) for seed in case.seeds] for lr in case.grid}
    num_test = len(config.task.load_split("test"))
    best = max(grid, key=lambda lr: float(np.mean(grid[lr])))
    top = float(np.mean(grid[best]))
    error = math.sqrt(top * (1 - top) / num_test)
    optima = [lr for lr in grid if np.mean(grid[lr]) >= top - error]
    ratios = [max(finding.suggestion / lr, lr / finding.suggestion) for lr in optima] if finding.suggestion else []
    return {
        "name": case.name,
        "suggestion": finding.suggestion,
        "repeats": finding.repeats,
        "doubts": finding.doubts,
        "best": best,
        "optima": optima,
        "grid": {f"{lr:g}": scores for lr, scores in grid.items()},
        "factor": min(ratios, default=math.inf),
        "factor_to_best": max(finding.suggestion / best, best / finding.suggestion)
        if finding.suggestion
        else math.inf,
        "is_right": min(ratios, default=math.inf) <= FACTOR,
    }


def score(config: RunConfig, lr: float, seed: int) -> float:
    """The first metric of a run at this rate, on the test split; 0 where it diverges."""
    from finetune.errors import DivergedError

    optimizer: Any = config.optimizer
    head = optimizer.head_lr * lr / optimizer.lr if optimizer.head_lr is not None else None
    changed = dataclasses.replace(config, optimizer=dataclasses.replace(optimizer, lr=lr, head_lr=head), seed=seed)
    try:
        found = fit(**vars(changed), show="nothing").metrics["test"]
    except DivergedError:
        return 0.0
    task: Any = config.task
    return found[str(task.metrics[0])]


def row(found: dict[str, Any]) -> list[str]:
    """A line of the table, cell by cell."""
    grid = "  ".join(f"{lr} {100 * float(np.mean(scores)):.1f}" for lr, scores in found["grid"].items())
    suggestion = f"{found['suggestion']:.1e}" if found["suggestion"] else "none"
    best = ", ".join(f"{lr:g}" for lr in sorted(found["optima"], key=lambda lr: lr != found["best"]))
    doubt = " (not reliable)" if found["doubts"] else ""
    right = "yes" if found["is_right"] else "no"
    return [found["name"], f"{suggestion}{doubt}", best, f"{found['factor']:.3g}", right, grid]


if __name__ == "__main__":
    main()
