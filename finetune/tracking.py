"""What a run tells people while it goes: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self

Show = Literal["progress", "nothing"]


class Silent:
    """Shows nothing: other ranks, and callers who asked for it."""

    def update(self, step: int, *, loss: float, lr: float) -> None:
        pass

    def line(self, text: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class Lines:
    """Plain lines on stderr, at most one in ten seconds and one at each event; for logs and pipes."""

    _INTERVAL_S = 10.0

    def __init__(self, total_steps: int, *, start: int) -> None:
        self._total = total_steps
        self._began = self._shown = time.monotonic()
        self._start = start

    def update(self, step: int, *, loss: float, lr: float) -> None:
        now = time.monotonic()
        if now - self._shown >= self._INTERVAL_S:
            self._shown = now
            left = (now - self._began) / max(1, step - self._start) * (self._total - step)
            self.line(f"step {step}/{self._total}  loss {loss:.4f}  lr {lr:.2e}  {_clock(left)} left")

    def line(self, text: str) -> None:
        try:
            print(text, file=sys.stderr, flush=True)
        except OSError:  # a closed terminal or a full disk behind a pipe never ends a run
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class Bar:
    """A bar with loss, learning rate and remaining time, on a terminal; told four times a second at most."""

    _INTERVAL_S = 0.25

    def __init__(self, total_steps: int, *, start: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("loss {task.fields[loss]}  lr {task.fields[lr]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar = self._progress.add_task("", total=total_steps, completed=start, loss="-", lr="-")
        self._total = total_steps
        self._shown = 0.0

    def update(self, step: int, *, loss: float, lr: float) -> None:
        now = time.monotonic()
        if now - self._shown < self._INTERVAL_S and step < self._total:
            return
        self._shown = now
        self._progress.update(self._bar, completed=step, loss=f"{loss:.4f}", lr=f"{lr:.2e}")

    def line(self, text: str) -> None:
        with suppress(OSError):  # as for lines: a terminal that went away never ends a run
            self._progress.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._progress.stop()


def display(show: Show, *, total_steps: int, start: int) -> Bar | Lines | Silent:
    """The display that fits: none, a bar on a terminal, or lines (also under ``CI``)."""
    if show == "nothing":
        return Silent()
    if sys.stderr.isatty() and not os.environ.get("CI"):
        return Bar(total_steps, start=start)
    return Lines(total_steps, start=start)


def log_record(
    *,
    step: int,
    epoch: float,
    loss: float,
    lrs: Mapping[str, float],
    grad_norms: Mapping[str, float],
    grad_norm: float,
    scale: float | None,
    skipped: int,
) -> dict[str, Any]:
    """One line of ``log.jsonl``: mean loss since the last line, LR and gradient norm per layer group.

    Groups that are frozen at this step are left out; scale and skipped updates are there under fp16 only.
    """
    record: dict[str, Any] = {
        "step": step,
        "epoch": round(epoch, 4),
        "loss": loss,
        "lr": {name: lr for name, lr in lrs.items() if name in grad_norms},
        "grad_norm": {"total": grad_norm, **grad_norms},
    }
    if scale is not None:
        record |= {"loss_scale": scale, "skipped_updates": skipped}
    return record


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
