"""When each update began, and what happened between the two that a row asks about."""

from __future__ import annotations

import time

from . import memory


class Clock:
    """Is told of every update by whoever does the work, in the process that does it.

    Args:
        first: The window opens when this update begins.
        last: The window closes when this update begins.
    """

    def __init__(self, *, first: int = 0, last: int = 0) -> None:
        self._first, self._last = first, last
        self.ticks: dict[int, float] = {}
        self._held: int | None = None
        self._began = self._ended = 0.0
        self.peak_bytes = 0

    def loaded(self) -> None:
        """Model and data are there: memory counts from here, and so does the time of a whole run."""
        self._held = memory.reset_peak()
        self._began = time.perf_counter()

    def tick(self, step: int) -> None:
        """Update ``step``, from 0, begins; of several calls for one the first counts.

        Update 0 may be begun twice: trial forwards before a run look like it.
        """
        if step in self.ticks and step:
            return
        if step in (self._first, self._last):
            _wait_for_device()
        self.ticks[step] = time.perf_counter()
        if step == self._last:
            self._note_peak()

    def finished(self) -> None:
        """A whole run is over."""
        _wait_for_device()
        self._ended = time.perf_counter()
        self._note_peak()

    def window(self) -> float:
        """Seconds between the beginnings of the two updates."""
        return self.ticks[self._last] - self.ticks[self._first]

    def whole(self) -> float:
        """Seconds from ``loaded`` to ``finished``."""
        return self._ended - self._began

    @property
    def began(self) -> float:
        """When model and data were there."""
        return self._began

    def gaps(self) -> list[float]:
        """Seconds from each update of the window to the next."""
        steps = range(self._first, self._last)
        return [self.ticks[step + 1] - self.ticks[step] for step in steps]

    def _note_peak(self) -> None:
        if self._held is not None and not self.peak_bytes:
            self.peak_bytes = memory.peak() - self._held


def _wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
