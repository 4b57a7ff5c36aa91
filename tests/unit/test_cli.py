"""The verbs: what they print, where, and how they end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import finetune
from finetune.cli import main
from finetune.config import dump
from tests import runs

TREE = Path(finetune.__file__).parents[1]


class Ended(tuple):
    """(exit code, stdout, stderr)."""

    code = property(lambda self: self[0])
    out = property(lambda self: self[1])
    err = property(lambda self: self[2])


@pytest.fixture
def cli(capsys, monkeypatch):
    """Runs the command line in this process."""
    monkeypatch.setenv("COLUMNS", "80")

    def ran(*words) -> Ended:
        with pytest.raises(SystemExit) as end:
            main(argv=[str(word) for word in words])
        captured = capsys.readouterr()
        return Ended((end.value.code, captured.out, captured.err))

    return ran


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A YAML run on a tiny real model: 10 steps, gradual unfreezing, a curriculum."""
    folder = tmp_path_factory.mktemp("tiny")
    config = runs.config(runs.text_task(folder), strategy=runs.STRATEGIES["gradual_unfreeze"],
                         curriculum=finetune.Curriculum(), output_dir=str(folder / "run"))  # fmt: skip
    (folder / "tiny.yaml").write_text(dump(config))
    return folder / "tiny.yaml"


def test_recipes_lists_every_function_on_one_terminal_width(cli):
    ended = cli("recipes")
    assert ended.code == 0 and not ended.err
    assert re.search(r"bert_text +gradual_unfreeze +\S", ended.out) and re.search(r"vit_images +scratch", ended.out)
    rows = json.loads(cli("recipes", "--json").out)
    assert any({"file": "bert_text", "recipe": "lora"}.items() <= row.items() for row in rows)


def test_show_prints_a_config_that_shows_the_same(cli, tmp_path):
    shown = cli("show", "bert_text", "--recipe", "lora", "strategy.rank=16").out
    assert "rank: 16" in shown
    (tmp_path / "my.yaml").write_text(shown)
    assert cli("show", tmp_path / "my.yaml").out == shown
    assert cli("show", "vit_images", "--config", tmp_path / "my.yaml").out == shown
    assert json.loads(cli("show", "bert_text", "--json").out)["task"]["model"] == "minilm"


def test_cp_gives_a_file_that_runs_and_overwrites_nothing(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "finetune train ./bert_text.py" in cli("cp", "bert_text").out
    assert (
        cli("show", "./bert_text.py", "--recipe", "freeze").out == cli("show", "bert_text", "--recipe", "freeze").out
    )
    assert cli("cp", "bert_text").code == 2
    assert "--config_file ddp.yaml" in cli("cp", "ddp.yaml").out
    assert cli("cp", "vit_images", tmp_path / "none" / "x.py").code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bert_txt"], "did you mean 'bert_text'"),
        (["bert_text", "--recipe", "lorra"], "did you mean 'lora'"),
        (["bert_text", "strategy.name=lorra"], "strategy.name (command line): got 'lorra'"),
        (["bert_text", "3", "epochs"], "'3 epochs'"),
        (["bert_text", "--config", "gone.yaml"], "gone.yaml: No such file"),
        (["bert_text", "--resume", "--overwrite"], "Give one of them"),
        (["bert_text", "--bogus"], "No such option"),
        ([], "Missing argument"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(cli, words, said):
    ended = cli("train", *words)
    assert ended.code == 2 and not ended.out
    assert ended.err.startswith("error: ") and said in ended.err and "Traceback" not in ended.err


def test_an_unknown_verb_is_a_mistake(cli):
    ended = cli("trian", "bert_text")
    assert ended.code == 2 and ended.err.startswith("error: ")


def test_only_the_first_process_speaks(cli, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert cli("train", "bert_text", "seed=x") == (2, "", "")


def test_a_warning_is_one_line_told_once_and_deprecations_are_none(cli, monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import warnings\nfrom finetune import RunConfig, TextClassification\n"
        "def mine() -> RunConfig:\n    for name in 'ab':\n        warnings.warn('look here')\n"
        "        warnings.filterwarnings('default', name)\n    warnings.warn('old', FutureWarning)\n"
        "    return RunConfig(TextClassification(model='m', data='d'))\n"
    )
    ended = cli("show", tmp_path / "mine.py")
    assert (ended.code, ended.err) == (0, "warning: look here\n")


@pytest.mark.parametrize(("verb", "said"), [("train", "; go on with --resume"), ("plan", "")])
def test_ctrl_c_is_told(cli, tmp_path, verb, said):
    text = "from finetune import RunConfig\ndef mine() -> RunConfig:\n    raise KeyboardInterrupt\n"
    (tmp_path / "mine.py").write_text(text)
    assert cli(verb, tmp_path / "mine.py") == (130, "", f"error: interrupted{said}\n")


def test_debug_shows_the_traceback_first(cli):
    ended = cli("show", "bert_text", "seed=x", "--debug")
    assert ended.err.index("Traceback") < ended.err.index("error: seed (command line)")


def test_what_nobody_expected_leaves_a_log(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "mine.py").write_text(
        "from finetune import RunConfig, TextClassification\n"
        "def mine() -> RunConfig:\n    return RunConfig(TextClassification(model='m', data='d'))\n"
    )
    monkeypatch.setattr("finetune.config.dumping.dump_resolved", lambda found: 1 / 0)
    ended = cli("show", tmp_path / "mine.py")
    assert ended.code == 1 and ended.err.count("\n") == 1
    assert "unexpected ZeroDivisionError: division by zero" in ended.err
    (path,) = tmp_path.glob("finetune-crash-*/crash-rank0.log")
    log = path.read_text()
    assert "Traceback" in log and "finetune show" in log and str(path) in ended.err


def test_a_recipe_file_is_the_same_door(tmp_path):
    """Run as a launcher runs it: the verb's words, the verb's message, the verb's exit code."""
    own = tmp_path / "own.py"
    own.write_text((TREE / "recipes" / "bert_text.py").read_text())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(TREE), os.environ["PYTHONPATH"]))}
    words = [sys.executable, str(own), "--recipe", "lora", "strategy.rnak=3"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: strategy.rnak (command line): lora has no 'rnak' (did you mean 'rank'?)")


def test_plan_says_what_trains_when_and_what_is_new(cli, tiny):
    ended = cli("plan", tiny)
    assert ended.code == 0, ended.err
    assert max(map(len, ended.out.splitlines())) <= 80
    for expected in (
        "tiny: text_classification",
        "gradual_unfreeze (over 60%",
        "new in head",
        "10 = ",
        "may be drawn",
    ):
        assert expected in ended.out, expected
    document = json.loads(cli("plan", tiny, "--json").out)
    head = next(line for line in ended.out.splitlines() if line.startswith("head *"))
    assert f"{document['groups'][-1]['num_parameters']:,}" in head and "0-9" in head
    for phase in document["phases"]:
        assert f"{phase['from']}-{phase['to'] - 1} " in ended.out


def test_plan_draws_and_refuses_what_it_cannot_draw_before_loading(cli, tiny, tmp_path):
    assert cli("plan", tiny, "--plot", tmp_path / "plan.svg").code == 0
    text = (tmp_path / "plan.svg").read_text()
    assert "<svg" in text and len(text) > 10_000
    for name in ("plan.bmp", "none/plan.png"):
        ended = cli("plan", "bert_text", "--plot", tmp_path / name)
        assert ended.code == 2 and "--plot" in ended.err


def test_train_evaluate_and_publish_follow_one_another(cli, tiny):
    """One tiny run from YAML to the check before publishing."""
    run = tiny.parent / "run"
    ended = cli("train", tiny, "strategy=freeze", "curriculum=none", "length=4 steps")
    assert ended.code == 0, ended.err
    assert "accuracy" in ended.out and str(run / "model") in ended.out
    stored = (run / "config.yaml").read_text()
    assert cli("show", run / "config.yaml").out == stored.rstrip() + "\n" and "name: freeze" in stored
    assert (
        json.loads(cli("plan", run / "config.yaml", "--json").out)["digest"]
        == json.loads((run / "plan.json").read_text())["digest"]
    )
    again = cli("train", run / "config.yaml")
    assert again.code == 2 and "it holds a finished run" in again.err and "--resume" not in again.err
    final = json.loads((run / "metrics.json").read_text())["final"]["validation"]
    found = json.loads(cli("evaluate", run, "--split", "validation", "--json").out)
    assert found == pytest.approx(final, abs=1e-6)
    whole = (run / "model" / "config.json").read_text()
    (run / "model" / "config.json").write_text(whole[:50])
    ended = cli("evaluate", run, "--split", "validation")
    assert ended.code == 2 and ended.err.startswith(f"error: model '{run / 'model'}' cannot be loaded")
    (run / "model" / "config.json").unlink()
    ended = cli("evaluate", run, "--split", "validation")
    assert ended.code == 2 and ended.err.startswith(f"error: model '{run / 'model'}' cannot be loaded")
    ended = cli("plan", tiny, f"task.model={run}")
    assert ended.code == 2 and f"is a run folder. Give its model: '{run / 'model'}'" in ended.err
    (run / "model" / "config.json").write_text(whole)
    ended = cli("publish", run, "me/tiny", "--dry-run", "--json")
    dry = json.loads(ended.out or ended.err)
    assert "README.md" in dry["files"] and dry["commit"] == ""


def test_evaluate_refuses_what_is_no_run(cli, tmp_path):
    assert "is no finished run" in cli("evaluate", tmp_path).err
    assert "did you mean 'validation'" in cli("evaluate", tmp_path, "--split", "validaton").err


def test_doctor_names_what_it_finds(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    found = json.loads(cli("doctor", "--json").out)
    assert found["versions"]["torch"] and found["devices"][0]["precision"]["fp32"] == "yes"
    assert found["hub"]["state"] == "offline (HF_HUB_OFFLINE is set)" and found["disk"]["free"] > 0
    assert "fp16" in cli("doctor").out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("distributed_type: MULTI_CPU\nnum_processes: 2\n", "MULTI_CPU starts one process, not 2"),
        ("distributed_type: 'NO'\nnum_processes: 2\n", "starts one process"),
        ("distributed_type: 'NO'\nuse_cpu: false\n", "OMP_NUM_THREADS=1"),
        ("distributed_type: FSDP\nfsdp_config: {fsdp_version: 1}\n", "accelerate to-fsdp2"),
        ("distributed_type: false\n", "is a boolean; write it in quotes"),
        ("mixed_precision: fp16\n", "mixed_precision fp16: slow here"),
        ("a: [", "cannot be read"),
    ],
)
def test_launch_traps_are_seen_in_a_file(tmp_path, monkeypatch, text, said):
    from finetune.cli.launch_traps import traps

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    path = tmp_path / "launch.yaml"
    path.write_text(text)
    found = traps(path, device="cpu", precision={"fp32": "yes", "bf16": "yes", "fp16": "slow here"})
    assert any(said in trap for trap in found), found


def test_launch_traps_are_seen_in_the_environment_and_the_default_file(tmp_path, monkeypatch):
    from finetune.cli.launch_traps import traps

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert traps(None, device="cpu", precision={}) == []
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    (tmp_path / "accelerate").mkdir()
    (tmp_path / "accelerate" / "default_config.yaml").write_text("distributed_type: MULTI_CPU\nnum_processes: 4\n")
    found = "\n".join(traps(None, device="cpu", precision={}))
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS" in found and "not 4" in found


def test_the_shipped_launches_hold_no_traps_where_they_belong(tmp_path, monkeypatch):
    from finetune.cli.launch_traps import traps
    from finetune.config.recipe_files import shipped

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    native = {"fp32": "yes", "bf16": "yes", "fp16": "yes"}
    for path in shipped("accelerate_configs").glob("*.yaml"):
        device = "cpu" if "cpu" in path.stem else "cuda:0"
        found = traps(path, device=device, precision=native)
        assert found == [], path


@pytest.mark.parametrize("kind", ["lora", "images", "timm", "scratch"])
def test_evaluate_scores_what_the_run_scored(cli, tmp_path, kind):
    """The saved model, of whatever form, gives the run's own numbers."""
    from tests import tiny_models

    task = runs.image_task(tmp_path) if kind in ("images", "timm") else runs.text_task(tmp_path)
    if kind == "timm":
        tiny_models.save_timm_folder(tmp_path / "timm")
        task = runs.replaced(task, model=f"timm:{tmp_path / 'timm'}")
    if kind == "scratch":
        task = runs.replaced(task, weights="scratch")
    strategy = runs.STRATEGIES["lora" if kind == "lora" else "full"]
    config = runs.config(task, strategy=strategy, length="3 steps", output_dir=str(tmp_path / "run"))
    (tmp_path / "run.yaml").write_text(dump(config))
    assert cli("train", tmp_path / "run.yaml").code == 0
    final = json.loads((tmp_path / "run" / "metrics.json").read_text())["final"]["validation"]
    ended = cli("evaluate", tmp_path / "run", "--split", "validation", "--json")
    assert json.loads(ended.out or ended.err) == pytest.approx(final, abs=1e-6)
