"""A probe: a few inputs and the logits that the trained model gave, kept beside ``model/``.

Whatever happens to a model folder later can be checked against it, by the plain library, in a fresh process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import PublishError

if TYPE_CHECKING:
    from torch import Tensor

PROBE = "probe.safetensors"
_SECONDS = 600  # for a large base model on a slow disk


def write_probe(
    run: Path,
    *,
    inputs: Mapping[str, Tensor],
    logits: Tensor,
    base: str = "",
    library: Literal["transformers", "timm"] = "transformers",
) -> Path:
    """Keep what the model in ``run/model`` must give.

    Args:
        run: The run folder.
        inputs: The model's inputs by name, as its forward takes them (``pixel_values`` for timm).
        logits: What it gave in eval mode, fp32, on the CPU: (batch, classes).
        base: For an adapter: where its base model is on this machine, as the user named it.
        library: The library of the model, or of an adapter's base.
    """
    from safetensors.torch import save_file

    tensors = {f"input.{name}": tensor.detach().cpu().contiguous() for name, tensor in inputs.items()}
    tensors["logits"] = logits.detach().float().cpu().contiguous()
    save_file(tensors, run / PROBE, metadata={"base": base, "library": library})
    return run / PROBE


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
    script = Path(__file__).with_name("reload.py")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(script), str(folder.resolve()), str(probe.resolve())],
            env=environment,
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
