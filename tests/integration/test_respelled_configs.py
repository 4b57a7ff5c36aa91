"""A configuration that says the same in other words is the same run: one digest, and it goes on from its own file."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from finetune.config import resolve
from finetune.curricula import Curriculum
from finetune.optimizers import AdamW
from finetune.running import prepare, train
from finetune.schedules import WarmupLinear
from finetune.stages import Stage
from finetune.stages.running import run_stages
from finetune.strategies import GradualUnfreeze
from finetune.training import fit, plan_run
from tests.runs import config, digest, text_task

MODEL = "model/model.safetensors"
PLAIN = {
    "length": "6 steps",
    "evaluate_every": "2 steps",
    "log_every": "1 step",
    "strategy": GradualUnfreeze(over="50%", rewarm="1 step"),
    "schedule": WarmupLinear(warmup="10%"),
    "curriculum": Curriculum(until="1 epoch"),
    "optimizer": AdamW(lr=1e-2, head_lr=1.0, betas=(0.9, 0.999)),
    "max_grad_norm": 1.0,
}
RESPELLED = {
    "length": "6  Steps",
    "evaluate_every": "2.0 step",
    "log_every": "1 steps",
    "strategy": GradualUnfreeze(over="50 %", rewarm="1 STEPS"),
    "schedule": WarmupLinear(warmup="10.0 %"),
    "curriculum": Curriculum(until="1.0 epochs"),
    "optimizer": AdamW(lr=0.01, head_lr=1, betas=[0.9, 0.999]),  # type: ignore[arg-type]
    "max_grad_norm": 1,
}


def test_other_words_for_the_same_are_one_plan(tmp_path):
    task = text_task(tmp_path)
    plain, respelled = (plan_run(config(task, **settings)) for settings in (PLAIN, RESPELLED))
    assert respelled["identity"] == plain["identity"] and respelled["digest"] == plain["digest"]
    assert plan_run(config(task, **PLAIN | {"length": "7 steps"}))["digest"] != plain["digest"]


@pytest.mark.parametrize("settings", [PLAIN, RESPELLED], ids=["plain", "respelled"])
def test_a_run_goes_on_from_its_own_config(tmp_path, settings):
    made = config(text_task(tmp_path), **settings)
    fit(**vars(replace(made, output_dir=str(tmp_path / "whole"))), show="nothing")
    cut = replace(made, output_dir=str(tmp_path / "cut"))
    with pytest.raises(Exception, match="step 3|stopped"):
        fit(**vars(cut), show="nothing", stop_at=3)
    stored = tmp_path / "cut" / "config.yaml"
    assert resolve(None, [stored], []).length == "6 steps"
    train(prepare(str(stored), function=None, files=(), overrides=()), existing="resume")
    found, expected = (digest(load_file(tmp_path / name / MODEL)) for name in ("cut", "whole"))
    assert found == expected


def test_a_stage_that_is_done_is_not_another_one_in_other_words(tmp_path):
    root, task = tmp_path / "series", text_task(tmp_path)
    first = config(task, length="2 steps")
    run_stages([Stage("one", first)], output_dir=root, show="nothing")
    respelled = replace(first, length="2.0 step", max_grad_norm=1)
    run_stages([Stage("one", respelled)], output_dir=root, existing="resume", show="nothing")
    assert json.loads((root / "stages.json").read_text()) == {"stages": ["1-one"]}
