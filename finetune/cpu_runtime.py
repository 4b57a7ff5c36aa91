"""How the C library hands out memory while a run computes on a CPU."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Names and numbers of malloc.h.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_KEPT = 1 << 30  # bytes: buffers up to this size come from the heap, and so much of it may lie free at its end

# What glibc's own thresholds grow to in any process that frees large buffers (malloc.c, "dynamic mmap threshold":
# 32 MiB, and twice that for trimming). They cannot be read, and once set they grow no more, so this is put back.
_GROWN = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}
_TUNABLE = ("mmap_threshold", "trim_threshold", "top_pad", "mmap_max")


def why_unset(device: str, setting: str, *, environment: Mapping[str, str] = os.environ) -> str | None:
    """Why memory is handed out as the C library itself decides; None where a run changes it.

    Args:
        device: Type of the run's device, e.g. ``"cpu"``.
        setting: ``speed.cpu_runtime``, ``"auto"`` or ``"off"``.
        environment: Of the process.
    """
    if setting == "off":
        return "off"
    if device != "cpu":
        return "only on a CPU"
    tunables = environment.get("GLIBC_TUNABLES", "")
    if any(f"MALLOC_{name.upper()}_" in environment or f"glibc.malloc.{name}=" in tunables for name in _TUNABLE):
        return "the environment sets it"
    if _glibc() is None:
        return "the C library is not glibc"
    return None


@contextmanager
def cpu_runtime(device: str, setting: str) -> Iterator[None]:
    """Keep freed memory for the next step, instead of giving it back to the system and clearing new pages each time.

    Exact: it decides where a tensor lies, never what is in it. At the end free memory goes back, and the thresholds
    are those that glibc grows to by itself; what they were before cannot be read (mallopt(3)).
    """
    if why_unset(device, setting) is not None:
        yield
        return
    libc = _glibc()
    assert libc is not None
    for name, grown in _GROWN.items():
        libc.mallopt(name, _KEPT) or libc.mallopt(name, grown)  # 0: a glibc that takes no threshold above 32 MiB
    try:
        yield
    finally:
        for name, grown in _GROWN.items():
            libc.mallopt(name, grown)
        libc.malloc_trim(ctypes.c_size_t(0))


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process where it is glibc; musl, macOS and Windows have no such settings."""
    try:
        is_glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
        return ctypes.CDLL(None) if is_glibc else None
    except (AttributeError, ValueError, OSError):
        return None
