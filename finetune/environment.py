"""The machine and the versions that a run was made with; no host name, no path, no user."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch transformers accelerate timm peft datasets evaluate tokenizers safetensors "
    "huggingface_hub numpy scikit-learn"
).split()


def versions() -> dict[str, str]:
    """Version by package, Python and ours included; a package that is absent is left out."""
    from ._version import VERSION

    found = {"finetune": VERSION, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> str:
    """Devices in words, e.g. ``"2-core x86_64 CPU"`` or ``"NVIDIA H200"``."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{cores()}-core {platform.machine()} CPU"


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(*, seed: int, num_ranks: int, precision: str) -> Mapping[str, Any]:
    """The document ``environment.json``."""
    import torch

    return {
        "versions": versions(),
        "hardware": hardware(),
        "num_ranks": num_ranks,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "seed": seed,
        "git": _commit(),
        "platform": platform.system(),
    }


def _commit() -> str | None:
    """The commit of the working folder, with ``-dirty`` where files differ; None outside git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=5,
            cwd=Path.cwd(),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
