"""Worker processes: one contender, one round, with caches of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parents[1]
_TIMEOUT_S = 900


def call(arguments: list[str], root: Path) -> dict[str, Any]:
    """Run a worker to its end.

    Raises:
        RuntimeError: It failed or took too long; holds the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.worker", *arguments]
        command += ["--root", str(root.resolve()), "--output", str(output)]
        try:
            done = subprocess.run(
                command,
                env=environment(Path(folder)),
                cwd=SOURCES,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"took more than {_TIMEOUT_S} s") from None
        if done.returncode or not output.exists():
            raise RuntimeError(last_lines(done.stderr) or f"exit code {done.returncode}")
        return json.loads(output.read_text(encoding="utf-8"))


def environment(folder: Path) -> dict[str, str]:
    """Of a worker: offline, and with caches of its own, so that no round profits from an earlier one."""
    own = {"FINETUNE_CACHE": "finetune", "HF_DATASETS_CACHE": "datasets", "XDG_CACHE_HOME": "cache"}
    fixed = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    return {**os.environ, **fixed, **{name: str(folder / place) for name, place in own.items()}}


def last_lines(text: str, *, most: int = 2) -> str:
    """The end of what a process said, without paths."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-most:])[:300].replace(str(SOURCES), "").replace(str(Path.home()), "~")
