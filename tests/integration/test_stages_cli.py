"""``finetune plan``, ``show`` and ``train`` of a configuration with stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.cli import main
from finetune.config import dump
from finetune.config.dumping import as_yaml
from finetune.config.yaml_reader import read_text
from tests import runs

STAGES = [
    {"name": "adapt", "task": {"name": "masked_language"}, "length": "2 steps"},
    {"name": "probe", "strategy": "freeze"},
    {"name": "unfreeze", "strategy": "gradual_unfreeze"},
    {"name": "mean", "average": {"alpha": 0.5}},
]


@pytest.fixture
def cli(capsys, monkeypatch):
    """Runs the command line in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "100")

    def ran(*words):
        with pytest.raises(SystemExit) as end:
            main(argv=[str(word) for word in words])
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return ran


@pytest.fixture
def file(tmp_path):
    """A YAML file with four stages on a tiny real model."""
    config = runs.config(runs.text_task(tmp_path), length="4 steps", output_dir=str(tmp_path / "series"))
    tree = read_text(dump(config), origin="").tree | {"stages": STAGES}
    (tmp_path / "series.yaml").write_text(as_yaml(tree))
    return tmp_path / "series.yaml"


def test_plan_shows_every_stage(cli, file, tmp_path):
    code, out, err = cli("plan", file, "--plot", tmp_path / "plan.svg")
    assert code == 0, err
    for number, name in enumerate(("adapt", "probe", "unfreeze", "mean"), start=1):
        assert f"series, stage {number} of 4: {name}" in out
    assert "masked_language with" in out and "0.5 x probe + 0.5 x unfreeze" in out
    names = ["plan-1-adapt.svg", "plan-2-probe.svg", "plan-3-unfreeze.svg"]
    assert sorted(path.name for path in tmp_path.glob("plan*.svg")) == names
    described = json.loads(cli("plan", file, "--json")[1])["stages"]
    assert [stage["name"] for stage in described] == ["adapt", "probe", "unfreeze", "mean"]
    assert described[0]["total_steps"] == 2 and described[1]["total_steps"] == 4
    assert not (tmp_path / "series").exists()


def test_the_offline_example_of_the_page_runs(cli, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "stages.md").read_text(encoding="utf-8")
    (tmp_path / "offline.yaml").write_text(page.split("```yaml\n")[2].split("```")[0])
    task = runs.text_task(tmp_path)  # as small as the other tests: the page's own takes minutes
    data = {split: getattr(task.data, split) for split in ("train", "validation", "text", "label")}
    small = [f"task.model={task.model}", f"task.data={json.dumps(data)}", "length=2 steps", "task.max_length=32"]
    words = ["train", tmp_path / "offline.yaml", *small, f"output_dir={tmp_path / 'series'}"]
    code, out, err = cli(*words)
    assert code == 0, err
    assert [name in out for name in ("1-adapt", "2-probe", "3-unfreeze", "4-mean")] == [True] * 4
    assert cli("train", tmp_path / "series" / "config.yaml", "--resume")[:2] == (0, out)


def test_train_runs_them_and_goes_on(cli, file, tmp_path):
    code, out, err = cli("train", file, "stages[2].length=6 steps", "batch_size=4")
    assert code == 0, err
    assert "stage 2 of 4: probe" in err and "unfreeze" in out and "run folders:" in out
    stored = tmp_path / "series" / "config.yaml"
    assert cli("show", stored)[1].rstrip() == stored.read_text().rstrip()
    assert len(json.loads(cli("show", stored, "--json")[1])) == 4
    assert cli("train", stored)[0] == 2
    code, again, err = cli("train", stored, "--resume")
    assert (code, again) == (0, out), err
    code, out, err = cli("evaluate", tmp_path / "series" / "4-mean", "--split", "validation")
    assert code == 0 and "accuracy" in out, err


def test_a_fault_is_one_message_with_its_stage(cli, file):
    for verb in ("plan", "train"):
        code, _, err = cli(verb, file, "stages[1].optimizer.lr=-1")
        assert code == 2 and "stages[1].optimizer.lr (command line)" in err
        code, _, err = cli(verb, file, "stages[1].metric=bleu")
        assert code == 2 and "stages[1].metric: 'bleu'" in err
