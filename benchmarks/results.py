"""What the rounds say: values, medians, verdicts."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from .definition import OURS, Result, Row, Target
from .measuring import skipped
from .rounds import WARMUP_ROUND, Rounds, source_digest
from .rows import row_named


@dataclass(frozen=True)
class Results:
    """The finished rounds of one row; of its newest definition and library only.

    Args:
        row: The row.
        source: The row whose rounds are read: itself, or the one that it takes them from.
        key: Of the rounds; empty where there are none.
        records: Of that key.
    """

    row: Row
    source: Row
    key: str
    records: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, row: Row, rounds: Rounds) -> Results:
        """Read them."""
        source = row_named(row.takes_from) if row.takes_from else row
        key = rounds.newest_key(source) or ""
        return cls(row, source, key, tuple(rounds.of(source, key)) if key else ())

    @property
    def is_older(self) -> bool:
        """Whether another state of the library was measured."""
        return not self.key.endswith(source_digest())

    def found(self, contender: str) -> list[Result]:
        """What a contender measured in the rounds that count."""
        return [
            record["result"]
            for record in self.records
            if record.get("contender") == contender
            and record["round"] > WARMUP_ROUND
            and "error" not in record["result"]
        ]

    def values(self, contender: str, key: str = "") -> list[float]:
        """One number of each round; by default the row's value."""
        key = key or self.row.value
        return [result[key] for result in self.found(contender) if result.get(key) is not None]

    def median(self, contender: str, key: str = "") -> float | None:
        """Of the rounds."""
        values = self.values(contender, key)
        return statistics.median(values) if values else None

    def missing(self, contender: str) -> str:
        """Why a contender has no value."""
        reason = skipped(self.source, self.source.contender(contender))
        if reason:
            return f"skipped: {reason}"
        errors = [
            r["result"]["error"]
            for r in self.records
            if "error" in r.get("result", {}) and r["contender"] == contender
        ]
        return f"failed: {errors[-1]}" if errors else "not measured"

    def equality(self) -> str:
        """The verdict of the gate."""
        if not self.source.gate:
            return ""
        gates = [record["gate"] for record in self.records if "gate" in record]
        if not gates:
            return "not measured"
        if "error" in gates[-1]:
            return f"failed: {gates[-1]['error']}"
        worst = max(gates[-1].get(name, 0.0) for name in ("fast_plain", "fast_loop", "features"))
        return f"{'equal' if gates[-1]['passed'] else 'DIFFERENT'} ({worst:.0e})"


@dataclass(frozen=True)
class Judged:
    """How a target came out.

    Args:
        measured: A ratio, a share or the value itself; None where it was not measured.
        verdict: In words.
    """

    measured: float | None
    verdict: str


def judged(results: Results, target: Target) -> Judged:
    """Compare what was measured with what must be."""
    row = results.row
    reason = skipped(row) or ("" if results.records else "not measured")
    if reason:
        return Judged(None, f"skipped: {reason}" if skipped(row) else reason)
    ours = results.median(OURS)
    if ours is None:
        return Judged(None, results.missing(OURS))
    measured: float | None = ours
    if target.kind in ("times", "share"):
        theirs = results.median(target.against)
        if theirs is None:
            return Judged(None, results.missing(target.against))
        measured = _ratio(theirs, ours) if target.kind == "times" else _ratio(ours, theirs)
    assert measured is not None
    more_is_better = target.kind in ("times", "least")
    if not _reaches(measured, target.must, more_is_better=more_is_better):
        return Judged(measured, "**missed**")
    aimed = target.aim is not None and _reaches(measured, target.aim, more_is_better=more_is_better)
    return Judged(measured, "reached, and the aim" if aimed else "reached")


def _ratio(above: float, below: float) -> float:
    """Infinite where nothing is left to divide by: an overhead may be below what can be measured."""
    return above / below if below > 0 else float("inf")


def _reaches(measured: float, bound: float, *, more_is_better: bool) -> bool:
    return measured >= bound if more_is_better else measured <= bound
