"""One piece of work in a thread of its own, which is gone once it was waited for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Generic, TypeVar

T = TypeVar("T")


class Errand(Generic[T]):
    """Work that goes on beside the caller's; the interpreter does not end before it does.

    Args:
        work: Begins at once.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._future = self._executor.submit(work)
        self._executor.shutdown(wait=False)  # the thread ends with its work, also where nobody waits for it

    def result(self) -> T:
        """Wait for it; its fault is raised here. An interrupt ends only the waiting, so this may be called again."""
        self._over()
        return self._future.result()

    def outlast(self) -> None:
        """Wait until it is over, whatever came of it; an interrupt is raised only then."""
        try:
            self._over()
        except KeyboardInterrupt:
            self.outlast()
            raise

    def _over(self) -> None:
        wait([self._future])  # first: Python 3.11 takes a thread for ended whose join was interrupted
        self._executor.shutdown()
