"""Whether a model folder still gives what it gave at the end of its run, by the plain library in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ..errors import ModelError, PublishError
from ..models.contained import check_adapter, check_config, check_links, check_weights
from ..models.sources import resolve

_SECONDS = 600  # for a large base model on a slow disk


def check_reload(folder: Path, probe: Path) -> None:
    """Load ``folder`` with its plain library in a fresh process and compare logits with the probe.

    Raises:
        PublishError: It does not load, or gives other logits.
    """
    if not probe.exists():
        raise PublishError(
            f"{probe.name} is missing beside the model, so its logits cannot be checked. "
            "It is written at the end of a run: finish the run with --resume, then publish."
        )
    _check_contained(folder, probe)
    script = Path(__file__).with_name("reload.py")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(script), str(folder.resolve()), str(probe.resolve())],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PublishError(f"The model did not load within {_SECONDS} s in a fresh process.") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it ended without a message"])[-1]
        raise PublishError(f"The model does not open with its plain library: {reason}. Nothing was published.")
    difference = json.loads(done.stdout.strip().splitlines()[-1])["difference"]
    if difference > 1:
        raise PublishError(
            "The model opens with its plain library, but gives other logits than at the end of the run "
            f"({difference:.3g} times the tolerance). Its files were changed or damaged since; nothing was published."
        )


def _check_contained(folder: Path, probe: Path) -> None:
    """See that the plain library will find weights as safetensors, and inside the folder; of an adapter's base too.

    Raises:
        PublishError: They are elsewhere, or pickles.
    """
    try:
        if not (folder / "adapter_config.json").is_file():
            return _check_model(folder, "model")
        check_adapter(folder)
        base = resolve(_base_of(folder, probe))
        if base.is_folder:
            _check_model(Path(base.place), base.text)
    except ModelError as fault:
        raise PublishError(f"{fault} Nothing was published.") from fault


def _check_model(folder: Path, text: str) -> None:
    check_links(folder, text=text)
    check_config(folder, text=text)
    check_weights(folder, text=text)


def _base_of(folder: Path, probe: Path) -> str:
    """Where an adapter's base model is: as its run knew it, or else as the adapter names it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(probe, framework="numpy") as file:
            known = (file.metadata() or {}).get("base")
        return known or str(json.loads((folder / "adapter_config.json").read_bytes())["base_model_name_or_path"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as fault:
        raise PublishError(
            f"{probe.name} or adapter_config.json is damaged ({fault}). Nothing was published."
        ) from fault
