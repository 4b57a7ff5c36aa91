"""Rounds of a row: its contenders in turns, and its equality gate."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .definition import Contender, Result, Row
from .processes import call
from .rounds import WARMUP_ROUND, Rounds, key_of


def skipped(row: Row, contender: Contender | None = None) -> str:
    """Why a row or a contender cannot run here; empty where it can."""
    if row.needs_cuda and not has_cuda():
        return "no CUDA device"
    if contender is not None and contender.needs and importlib.util.find_spec(contender.needs) is None:
        return f"{contender.needs} is not installed (pip install 'finetune-toolkit[bench]')"
    return ""


def has_cuda() -> bool:
    """Whether torch sees a CUDA device."""
    import torch

    return torch.cuda.is_available()


def measure_row(row: Row, rounds: Rounds, *, root: Path, count: int, quick: bool, say: Callable[[str], None]) -> None:  # noqa: FBT001
    """One warm-up round and ``count`` rounds of every contender that is missing, A B A B …, and the gate.

    Args:
        row: To measure.
        rounds: Where finished ones are kept.
        root: Of everything that is written.
        count: Rounds that count.
        quick: Only the contenders for ``--quick``, without the warm-up round: each process warms up by itself.
        say: Prints a line of progress.
    """
    contenders = [c for c in row.contenders if (c.quick or not quick) and not skipped(row, c)]
    key = key_of(row)
    _prepare(row, root)
    if row.gate and not any("gate" in record and _is_good(record) for record in rounds.of(row, key)):
        rounds.add(row=row.name, key=key, gate=_attempt(["gate", row.name], root))
        say(f"{row.name}: equality {rounds.records[-1]['gate']}")
    count = min(count, row.rounds) if row.rounds else count
    first = 1 if quick or row.rounds else WARMUP_ROUND
    for number in range(first, count + 1):
        done = {
            record["contender"] for record in rounds.of(row, key) if record.get("round") == number and _is_good(record)
        }
        for contender in contenders:
            if contender.name in done:
                continue
            began = time.monotonic()
            result = _attempt(["measure", row.name, contender.name], root)
            rounds.add(row=row.name, key=key, contender=contender.name, round=number, result=result)
            value = result.get(row.value, result.get("error", "?"))
            say(f"{row.name}: round {number}, {contender.name}: {value} ({time.monotonic() - began:.0f} s in all)")


def _prepare(row: Row, root: Path) -> None:
    """Have models and data made, once, in a process that measures nothing."""
    works = [contender.work or row.work for contender in row.contenders]
    stamp = root / "prepared" / "-".join([row.name, *sorted({work.digest() for work in works})])
    if not stamp.exists():
        call(["prepare", row.name], root)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()


def _is_good(record: dict[str, Any]) -> bool:
    """Whether a round or a gate came to its end; what failed is tried again by the next run."""
    return "error" not in record.get("result", record.get("gate", {}))


def _attempt(arguments: list[str], root: Path) -> Result:
    """What a worker measured, or its error: one contender that fails never stops the table."""
    try:
        return call(arguments, root)
    except RuntimeError as error:
        return {"error": str(error)}
