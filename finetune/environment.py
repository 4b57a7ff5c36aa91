"""The machine and the versions that a run was made with; no host name, no path, no user."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch transformers accelerate timm peft datasets evaluate tokenizers safetensors "
    "huggingface_hub numpy scikit-learn"
).split()

_NOTHING = 1  # what ``git config --get-regexp`` ends with where no key is like that


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
    """The commit of the working folder, with ``-dirty`` where files differ; None outside git.

    The folder may be a stranger's, and git runs what the configuration in it names. So nothing is asked that would:
    where it brings filters of its own, which cannot be switched off, the files are not compared (``-unchecked``).
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None or commit.returncode:
        return None
    filters = _git("config", "--show-scope", "--name-only", "--get-regexp", r"^filter\.")
    if (
        filters is None
        or filters.returncode not in (0, _NOTHING)
        or re.search("^(local|worktree)", filters.stdout, re.M)
    ):
        return f"{commit.stdout.strip()}-unchecked"
    compared = _git("diff", "--quiet", "--ignore-submodules=all", "--no-ext-diff", "--no-textconv", "HEAD", "--")
    if compared is None or compared.returncode not in (0, 1):
        return f"{commit.stdout.strip()}-unchecked"
    return commit.stdout.strip() + ("-dirty" if compared.returncode else "")


def _git(*words: str) -> subprocess.CompletedProcess[str] | None:
    """What git says here, without the watcher and the hooks that a configuration may name, and without fetching."""
    try:
        return subprocess.run(
            ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *words],
            capture_output=True,
            text=True,
            timeout=5,
            cwd=Path.cwd(),
            check=False,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
