"""What has been measured so far: a line in a file for every finished round."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .definition import Row
from .processes import SOURCES

WARMUP_ROUND = 0


@dataclass
class Rounds:
    """What has been measured, in a JSON lines file; an interrupted table goes on from it.

    Args:
        path: The file.
    """

    path: Path
    records: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            self.records = [record for record in map(_parsed, lines) if record is not None]

    def add(self, **record: Any) -> None:
        """Append one line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + json.dumps(record) + "\n")
        self.records.append(record)

    def of(self, row: Row, key: str) -> list[dict[str, Any]]:
        """The records of a row under a key."""
        return [record for record in self.records if record["row"] == row.name and record["key"] == key]

    def newest_key(self, row: Row) -> str | None:
        """Of the row's last record of its present definition."""
        prefix = f"{row.work.digest()}-"
        keys = [r["key"] for r in self.records if r["row"] == row.name and r["key"].startswith(prefix)]
        return keys[-1] if keys else None


def _parsed(line: str) -> dict[str, Any] | None:
    """A record; None for the torn last line of a killed run."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"row", "key"} <= record.keys() else None


def key_of(row: Row) -> str:
    """Names the work and the library that did it: rounds of another are measured anew, together with the peers'."""
    return f"{row.work.digest()}-{source_digest()}"


def source_digest() -> str:
    """Of the library's Python files."""
    found = hashlib.blake2b(digest_size=6)
    for path in sorted((SOURCES / "finetune").rglob("*.py")):
        found.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()
