"""Every way to launch a run: what was asked for is what runs, or one line says why not; and a folder has one run."""

# ruff: noqa: F401, F811 - fixtures are imported by name
from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist

import finetune
from finetune.checkpoints.run_folder import open_run_folder
from finetune.cli import main
from finetune.config.dumping import dump
from finetune.precision import Precision
from finetune.training.placement import placed
from tests.forked import Acting, Child, ended_child
from tests.integration.test_signals import folder, go, go_on, landed, left, place, task, whole
from tests.runs import config

TREE = Path(finetune.__file__).parents[1]
CONFIGS = TREE / "accelerate_configs"
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
LAUNCHER_SAYS = ("RANK", "WORLD_SIZE", "MASTER_", "ACCELERATE_", "FSDP_", "LOCAL_", "OMP_NUM_THREADS")
ALONE = "was asked for several processes, or machines, and started one"

# Words before the recipe file, variables, and what runs: processes, format; or what the one line says.
FORMS = {
    "finetune": (["-c", "from finetune.cli import main; main()", "train"], {}, (1, "fp32")),
    "python": ([], {}, (1, "fp32")),
    "accelerate cpu": ([*ACCELERATE, "--config_file", CONFIGS / "cpu.yaml"], {}, (1, "fp32")),
    "accelerate single": ([*ACCELERATE, "--config_file", CONFIGS / "single.yaml"], {}, (1, "fp32")),
    "accelerate ddp_cpu": ([*ACCELERATE, "--config_file", CONFIGS / "ddp_cpu.yaml"], {}, (2, "fp32")),
    "torchrun": (TORCHRUN, {}, (2, "fp32")),
    "accelerate multi_gpu": ([*ACCELERATE, "--multi_gpu", "--num_processes", "2"], {}, (2, "fp32")),
    "accelerate cpu 2": ([*ACCELERATE, "--cpu", "--num_processes", "2"], {}, ALONE),
    "accelerate fp16": ([*ACCELERATE, "--cpu", "--mixed_precision", "fp16"], {}, "precision"),
    "accelerate fsdp2": ([*ACCELERATE, "--config_file", CONFIGS / "fsdp2.yaml"], {}, "FSDP was asked for"),
    "accumulation": ([], {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "follow from batch_size"),
    "deepspeed": ([], {"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed is not supported"),
    "world size": ([], {"WORLD_SIZE": "2"}, "WORLD_SIZE=2 is set without RANK"),
    "two formats": (
        [*ACCELERATE, "--cpu", "--mixed_precision", "bf16"],
        {"FORMAT": "fp32"},
        "precision",
    ),
}


def environment(**changed):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHER_SAYS)}
    if "cpu" in str(changed):
        clean["ACCELERATE_USE_CPU"] = "true"
    return {
        **clean,
        "PYTHONPATH": os.pathsep.join((str(TREE), os.environ["PYTHONPATH"])),
        "CUDA_VISIBLE_DEVICES": "",
        **changed,
    }


def recipe_file(folder, task):
    """The task's run, as a file that is launched; ``FORMAT`` is its precision."""
    (folder.parent / "run.yaml").write_text(dump(config(task, length="2 steps", output_dir=str(folder))))
    file = folder.parent / "recipe.py"
    file.write_text(f"""import dataclasses, os
from pathlib import Path
from finetune import RunConfig
from finetune.cli import main
from finetune.precision import Precision
from tests import runs

def ours() -> RunConfig:
    task = runs.text_task(Path({str(folder.parents[1])!r}))
    precision = Precision(name=os.environ.get("FORMAT", "auto"))
    return runs.config(task, length="2 steps", output_dir={str(folder)!r}, precision=precision)

if __name__ == "__main__":
    main(ours)
""")
    return file


def check_form(name, folder, task):
    words, variables, expected = FORMS[name]
    file = recipe_file(folder, task)
    words = [str(word) for word in words]
    command = words if words and words[0] == sys.executable else [sys.executable, *words]
    done = subprocess.run(
        [*command, str(file)], env=environment(**variables), cwd=TREE, capture_output=True, text=True, timeout=240
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if isinstance(expected, str):
        assert done.returncode != 0 and len(said) == 1 and expected in said[0], done.stderr
        assert not folder.exists()
        return
    assert done.returncode == 0 and not said, done.stderr
    found = json.loads((folder / "environment.json").read_text())
    assert (found["num_ranks"], found["precision"]) == expected
    assert json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["ended"] == "finished"


def given_by_accelerate(*words):
    """The variables that ``accelerate launch`` gives the one process that it starts."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    args, *_ = _validate_launch_command(launch_command_parser().parse_args([*words, "recipe.py"]))
    found = prepare_simple_launcher_cmd_env(args)[1]
    return {name: value for name, value in found.items() if os.environ.get(name) != value}


def ended_launch(folder, task, variables):
    file = recipe_file(folder, task)

    def launched():
        os.environ.update(variables)
        main(argv=["train", str(file)])

    return ended_child(launched)


@pytest.mark.parametrize("name", ["accumulation", "deepspeed", "world size", "accelerate cpu 2"])
def test_variables_that_would_change_the_run_are_refused(folder, task, whole, name):
    words, variables, expected = FORMS[name]
    variables = variables or given_by_accelerate(*words[len(ACCELERATE) :])
    ended = ended_launch(folder, task, variables)
    assert ended.code == 2 and ended.err.count("\n") == 1 and expected in ended.err and not folder.exists()


def test_processes_that_would_each_train_alone_are_refused():
    """Whatever it was that made Accelerate see fewer than there are."""

    def alone():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        os.environ.update(WORLD_SIZE="2", RANK="0", LOCAL_RANK="0", ACCELERATE_USE_CPU="true")
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")  # which Accelerate asks for
        with placed(Precision()):
            raise AssertionError("one of two was let through")

    ended = ended_child(alone)
    assert ended.code == 2 and "2 processes were launched, but each would train alone" in ended.err, ended


def test_one_process_of_a_launcher_is_not_refused(folder, task):
    assert ended_launch(folder, task, given_by_accelerate("--cpu", "--num_processes", "1")).code == 0


@pytest.mark.drill
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FORMS)
def test_every_form_runs_as_it_says_or_is_refused(folder, task, name):
    check_form(name, folder, task)


def read(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_writer_is_refused_at_once_and_changes_nothing(folder, task):
    """Before it has loaded what takes seconds."""
    recipe_file(folder, task)
    with open_run_folder(folder):
        before = read(folder)
        for word in (None, "--resume", "--overwrite"):
            command = ["-X", "importtime", "-c", "from finetune.cli import main; main()", "train", "run.yaml"]
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, *command, *filter(None, [word])],
                env=environment(),
                cwd=folder.parent,
                capture_output=True,
                text=True,
                timeout=60,
            )
            lasted = time.monotonic() - began
            said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
            assert done.returncode == 2 and len(said) == 1 and f"in use by process {os.getpid()} " in said[0], said
            assert not any(line.endswith(" torch") for line in done.stderr.splitlines()), "torch takes seconds"
            assert lasted < 15
            print(f"{word or ''} refused after {lasted:.2f} s")
        assert read(folder) == before


def test_a_killed_owner_leaves_no_lock(folder, task, whole):
    """Its successor goes on at once; and no third one comes in beside that."""
    ready, told = os.pipe()

    def wait():
        landed()
        os.write(told, b".")
        signal.pause()

    owner = Child(lambda: go(Acting(task, 4, wait), folder))
    os.read(ready, 1)
    os.kill(owner.pid, signal.SIGKILL)
    assert owner.wait().code == -signal.SIGKILL
    go_on(task, folder)
    assert left(folder) == whole
