"""A process must not go on unseen when the one that started it has died."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when the thread that started it ends; on Linux only.

    Args:
        number: The signal; this process handles it as it would any other.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    with suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew whom to tell
        os.kill(os.getpid(), number)
