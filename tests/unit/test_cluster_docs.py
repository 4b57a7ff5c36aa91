"""The batch script in the docs does what it says, with the scheduler and the run replaced by a line each."""

from __future__ import annotations

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
trap 'sleep 0.3; echo "{\\"ended\\": \\"x\\", \\"exit_code\\": CODE}" >> runs/sst2/log.jsonl; exit CODE' TERM
echo "$@" >> told; touch ready
while true; do sleep 0.05; done
"""


def block(language, first):
    (found,) = [text for text in re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL) if text.startswith(first)]
    return found


@pytest.mark.parametrize("code", [75, 74])
def test_the_batch_script_passes_the_signal_on_and_requeues(tmp_path, code):
    (tmp_path / "runs" / "sst2").mkdir(parents=True)
    for name, text in (("finetune", RUN.replace("CODE", str(code))), ("scontrol", '#!/bin/bash\necho "$@" > asked\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "job.sh").write_text(block("bash", "#!/bin/bash"))
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17"}
    job = subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, env=variables)
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(30) == code
    assert (tmp_path / "told").read_text() == "train bert_text --resume output_dir=runs/sst2\n"
    assert (tmp_path / "asked").exists() == (code == 75)
    assert code != 75 or (tmp_path / "asked").read_text() == "requeue 17\n"


def test_the_job_of_a_cluster_is_yaml_of_the_right_form():
    job = yaml.safe_load(block("yaml", "apiVersion: batch/v1"))
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # without it podFailurePolicy is refused
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
