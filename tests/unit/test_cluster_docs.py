"""The batch script in the docs does what it says, with the scheduler and the run replaced by a line each."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

import finetune

DOCS = (Path(finetune.__file__).parents[1] / "docs" / "clusters.md").read_text(encoding="utf-8")
RUN = """#!/bin/bash
trap 'sleep 0.3; LOGGED exit CODE' TERM
echo "$@" >> told; touch ready
while true; do sleep 0.05; done
"""
LINE = '{"ended": "x", "exit_code": %d, "wall_seconds": %d}'


def block(language, first):
    (found,) = [text for text in re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL) if text.startswith(first)]
    return found


def catches(process, number):
    """Whether a process has a handler of a signal by now."""
    (mask,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    return int(mask, 16) >> (number - 1) & 1


@pytest.mark.parametrize(("code", "logged"), [(75, 75), (74, 74), (1, 76), (74, None), (1, None)])
def test_the_batch_script_passes_the_signal_on_and_requeues(tmp_path, code, logged):
    """Launchers end with 1; a start that is refused leaves the log as it was, with the last line of the one before."""
    log = tmp_path / "runs" / "sst2" / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(f"{LINE % (75, 1)}\n")
    append = f"echo '{LINE % (logged, 2)}' >> {log};" if logged else ""
    run = RUN.replace("CODE", str(code)).replace("LOGGED", append.replace("'", "'\\''"))
    for name, text in (("finetune", run), ("scontrol", '#!/bin/bash\necho "$@" > asked\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "job.sh").write_text(block("bash", "#!/bin/bash"))
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17"}
    job = subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, env=variables, start_new_session=True)
    try:
        while not (tmp_path / "ready").exists() or not catches(job, signal.SIGUSR1):  # it sets the trap meanwhile
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(60) == code
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    assert (tmp_path / "told").read_text() == "train bert_text --resume output_dir=runs/sst2\n"
    again = logged in (75, 76)
    assert (tmp_path / "asked").exists() == again
    assert not again or (tmp_path / "asked").read_text() == "requeue 17\n"


def test_the_job_of_a_cluster_is_yaml_of_the_right_form():
    job = yaml.safe_load(block("yaml", "apiVersion: batch/v1"))
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # without it podFailurePolicy is refused
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
