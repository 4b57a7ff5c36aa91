"""From a pickle of weights to safetensors, once, in a process of its own, at the word of whoever trusts the file."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ..errors import ModelError

_NAMES = {"pytorch_model": "model", "adapter_model": "adapter_model"}  # what the libraries look for
_SECONDS = 1800  # for a large model on a slow disk


def convert(file: Path) -> Path:
    """Write the tensors of ``file`` as safetensors beside it, under the name that its library looks for.

    Raises:
        ModelError: It cannot be read as tensors alone, or the new file exists.
    """
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "no such file"
        raise ModelError(f"{file}: {what}. Give a file of weights, such as pytorch_model.bin.")
    target = file.with_name(f"{_NAMES.get(file.stem, file.stem)}.safetensors")
    if target.exists():
        raise ModelError(f"{target} exists already. Load the folder as it is, or move that file away.")
    script = Path(__file__).with_name("convert.py")
    with _aside(target) as folder:
        made = Path(folder) / target.name
        try:
            done = subprocess.run(
                [sys.executable, "-P", str(script), str(file.resolve()), str(made)],
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ModelError(f"{file} was not read within {_SECONDS} s.") from None
        if done.returncode:
            raise ModelError(f"{file} is not converted: {_reason(done.stderr)}")
        with contextlib.suppress(OSError):  # not every file system knows modes
            shutil.copymode(file, made)  # safetensors makes it for its owner alone
        os.replace(made, target)
    return target


def _aside(target: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(dir=target.parent.resolve(), prefix=".convert-")
    except OSError as error:
        raise ModelError(f"{target} cannot be written: {error.strerror or error}. Copy the folder first.") from error


def _reason(stderr: str) -> str:
    if "Weights only load failed" in stderr or "UnpicklingError" in stderr:
        return "it holds more than tensors, which would have to run as code. Get the model as safetensors."
    lines = stderr.strip().splitlines()
    if lines[:1] == ["Traceback (most recent call last):"]:
        return f"it is damaged or no file of torch, or there is no space beside it ({lines[-1].rstrip('.')})."
    return lines[-1] if lines else "its process ended without a message"
