"""Whether a model folder still gives what it gave at the end of its run, by the plain library in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ..errors import PublishError

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
