"""The machine and the versions, in words: no host name, no path."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

_PEERS = ("lightning", "fastai")


def described() -> str:
    """Cores, processor, memory and GPU."""
    import torch

    from finetune.environment import cores

    parts = [f"{cores()} cores of {_processor()}", f"{_memory_gib():.0f} GiB of memory"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def library_versions() -> dict[str, str]:
    """By package; what is absent is left out."""
    from finetune.environment import versions

    found = dict(versions())
    for package in _PEERS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "an unknown processor"


def _memory_gib() -> float:
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
