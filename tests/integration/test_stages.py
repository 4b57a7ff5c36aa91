"""Several runs as one: each starts where the one before ended, and what is done is not done again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from finetune.errors import ConfigError, DataError, FinetuneError, RunFolderError
from finetune.optimizers import AdamW
from finetune.policies import Checkpointing
from finetune.running import evaluate_folder
from finetune.stages import Average, Stage
from finetune.stages.planning import StagePlan, in_stage, plan_stages
from finetune.stages.running import StageResult, run_stages
from finetune.strategies import Freeze, GradualUnfreeze, LoRA
from finetune.training import fit
from tests.forked import Acting, Child
from tests.runs import config, digest, image_task, masked_task, replaced, text_task, weights

STEPS = {"length": "4 steps", "evaluate_every": "2 steps"}
MODEL = "model/model.safetensors"


def series(folder, **changes):
    """adapt -> probe -> unfreeze -> average, on a tiny model."""
    steps = STEPS | changes
    task = text_task(folder)
    probe = config(task, strategy=Freeze(), optimizer=AdamW(lr=5e-2), **steps)
    return [
        Stage("adapt", config(masked_task(folder), **steps)),
        Stage("probe", probe),
        Stage("unfreeze", replace(probe, strategy=GradualUnfreeze(), optimizer=AdamW(lr=1e-2))),
        Stage("mean", Average(alpha=0.25)),
    ]


class Whole(NamedTuple):
    """A series that has run, and its plan from before."""

    folder: Path  # of models and data
    stages: list[Stage]
    root: Path
    plans: list[StagePlan]
    results: list[StageResult]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    stages, root = series(folder), folder / "series"
    plans = plan_stages(stages, output_dir=root)
    assert not root.exists()
    return Whole(folder, stages, root, plans, run_stages(stages, output_dir=root, show="nothing"))


def test_adapt_probe_unfreeze_average(whole):
    root, results = whole.root, whole.results
    folders = [f"{number}-{name}" for number, name in enumerate(("adapt", "probe", "unfreeze", "mean"), start=1)]
    assert [result.folder.name for result in results] == folders
    assert json.loads((root / "stages.json").read_text()) == {"stages": folders}
    adapt, probe, unfreeze, mean = (load_file(result.folder / MODEL) for result in results)
    # a probe leaves the encoder as the stage before it saved it
    shared = [name for name in adapt if name.startswith("bert.")]
    assert len(shared) > 20 and all(torch.equal(adapt[name], probe[name]) for name in shared)
    assert "cls.predictions.bias" in adapt and "classifier.weight" in probe
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, 0.75 * probe[name] + 0.25 * unfreeze[name], rtol=1e-6, atol=1e-7)
    assert not torch.equal(probe["classifier.weight"], unfreeze["classifier.weight"])
    for result in results[1:]:
        assert evaluate_folder(result.folder, split="validation") == pytest.approx(result.metrics["validation"])
        assert json.loads((result.folder / "metrics.json").read_text())["final"] == result.metrics


def test_a_stage_is_the_run_that_it_would_be_alone(whole):
    first, second = (stage.run for stage in whole.stages[:2])
    alone = fit(**vars(first), show="nothing")
    found = load_file(whole.root / "1-adapt" / MODEL)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights(alone.model).items() if name in found)
    second = replace(second, task=replaced(second.task, model=str(whole.root / "1-adapt" / "model")))
    alone = fit(**vars(second), show="nothing")
    assert digest(load_file(whole.root / "2-probe" / MODEL)) == digest(weights(alone.model))


def test_the_plan_is_what_runs(whole):
    plans, root = whole.plans, whole.root
    for plan in plans[:3]:
        ran = json.loads((plan.folder / "plan.json").read_text())
        planned = json.loads(json.dumps(plan.document))
        assert planned["model"] == ran["model"]
        for key in ("groups", "phases", "curve", "num_trained", "evaluations", "memory", "cached"):
            assert planned[key] == ran[key], key
    assert plans[0].document["digest"] == json.loads((root / "1-adapt/plan.json").read_text())["digest"]
    assert plans[1].document["digest"] == "not known before adapt has run"
    # the head is new after the stage that adapts, and the checkpoint's after the probe
    new = [[name for group in plan.document["groups"] for name in group["new"]] for plan in plans[:3]]
    assert any("classifier" in name for name in new[1]) and new[2] == []
    assert plans[3].document["average"] == {"start": "probe", "end": "unfreeze", "alpha": 0.25}
    again = plan_stages(whole.stages, output_dir=root)
    assert again[2].document["digest"] == json.loads((root / "3-unfreeze/plan.json").read_text())["digest"]


@pytest.mark.parametrize("cut", ["1-adapt", "3-unfreeze", "4-mean"])
def test_a_series_that_was_cut_goes_on_where_it_was(whole, tmp_path, monkeypatch, cut):
    import finetune.stages.running as running
    import finetune.training as training

    stages, root = whole.stages, tmp_path / "cut"
    began, fit_whole = [], training.fit

    def fit_cut(*args, **settings):
        began.append(settings["output_dir"].rpartition("/")[2])
        stop = 3 if began[-1] == cut and len(began) <= int(cut[0]) else None
        return fit_whole(*args, **settings, stop_at=stop)

    def average_cut(*args, **settings):
        raise FinetuneError("power cut")

    monkeypatch.setattr(training, "fit", fit_cut)
    with monkeypatch.context() as patched:
        if cut == "4-mean":
            patched.setattr(running, "average", average_cut)
        with pytest.raises(FinetuneError, match=rf"stages\[{int(cut[0]) - 1}\] \({cut[2:]}\)"):
            run_stages(stages, output_dir=root, show="nothing")
    began.clear()
    results = run_stages(stages, output_dir=root, existing="resume", show="nothing")
    assert began == [name for name in ("1-adapt", "2-probe", "3-unfreeze") if name >= cut]
    for result in results:
        assert digest(load_file(result.folder / MODEL)) == digest(load_file(whole.root / result.folder.name / MODEL))
    began.clear()
    assert run_stages(stages, output_dir=root, existing="resume", show="nothing") == results
    assert began == []


def test_a_stage_may_start_from_an_average(whole, tmp_path):
    """Planned before there is an average: on a model like its end, whose head is known."""
    stages = [*whole.stages, Stage("again", replace(whole.stages[2].run, length="4 steps"))]
    plan = plan_stages(stages, output_dir=tmp_path / "series")[4]
    assert plan.document["model"] == str(tmp_path / "series" / "4-mean" / "model")
    assert [name for group in plan.document["groups"] for name in group["new"]] == []


def test_an_average_can_be_published(whole):
    from finetune.hub.reload import difference

    mean = whole.root / "4-mean"
    assert difference(mean / "model", mean / "probe.safetensors") <= 1
    assert difference(whole.root / "3-unfreeze" / "model", mean / "probe.safetensors") > 1


def test_the_folder_of_a_series_is_guarded(tmp_path):
    stages, root = series(tmp_path, length="2 steps")[:2], tmp_path / "series"
    run_stages(stages, output_dir=root, show="nothing")
    with pytest.raises(RunFolderError, match="is not empty: it holds '1-adapt', '2-probe'"):
        run_stages(stages, output_dir=root, show="nothing")
    with pytest.raises(RunFolderError, match="holds other stages"):
        run_stages(stages[:1], output_dir=root, existing="resume", show="nothing")
    other = [replace(stages[0], run=replace(stages[0].run, seed=7)), stages[1]]
    with pytest.raises(RunFolderError, match=r"stages\[0\].*another configuration: seed: 42 -> 7"):
        run_stages(other, output_dir=root, existing="resume", show="nothing")
    free = [replace(stages[0], run=replace(stages[0].run, log_every="1 steps", workers=1)), stages[1]]
    run_stages(free, output_dir=root, existing="resume", show="nothing")
    single = tmp_path / "single"
    fit(**vars(replace(stages[0].run, output_dir=str(single))), show="nothing")
    with pytest.raises(RunFolderError, match="holds no series of ours"):
        run_stages(stages, output_dir=single, existing="resume", show="nothing")
    run_stages(stages, output_dir=root, existing="overwrite", show="nothing")
    assert (tmp_path / "series.old-1" / "2-probe").is_dir() and (root / "2-probe" / "model").is_dir()


def test_a_series_that_is_running_is_left_alone(tmp_path):
    """Nothing of it is moved aside, swept or written by a second one."""
    ready, told = os.pipe()
    held, release = os.pipe()

    def wait():
        os.write(told, b".")
        os.read(held, 1)

    root, run = tmp_path / "series", config(text_task(tmp_path), length="2 steps")
    stages = [Stage("one", replace(run, task=Acting(run.task, 1, wait)))]
    child = Child(lambda: run_stages(stages, output_dir=root, show="nothing"))
    os.read(ready, 1)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    try:
        for existing in ("refuse", "resume", "overwrite"):
            with pytest.raises(RunFolderError, match=f"series is in use by process {child.pid} "):
                run_stages(stages, output_dir=root, existing=existing, show="nothing")
        assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    finally:
        os.write(release, b".")
        ended = child.wait()
    assert ended.code == 0


def test_a_series_on_images(tmp_path):
    task = image_task(tmp_path)
    probe = config(task, strategy=Freeze(), checkpoint=Checkpointing(keep_best=0), **STEPS)
    stages = [
        Stage("probe", probe),
        Stage("full", replace(probe, optimizer=AdamW(lr=1e-3), strategy=GradualUnfreeze())),
    ]
    results = run_stages(stages, output_dir=tmp_path / "series", show="nothing")
    assert "accuracy" in results[1].metrics["validation"]


def wrong(folder, number, **changes):
    stages = series(folder)
    stages[number] = replace(stages[number], run=replace(stages[number].run, **changes))
    return stages


FAULTS = {
    "max_length": (
        lambda folder: wrong(folder, 2, task=replaced(text_task(folder), max_length=65)),
        ConfigError,
        r"stages\[2\]\.task\.max_length: 65 tokens",
    ),
    "metric": (lambda folder: wrong(folder, 1, metric="bleu"), ConfigError, r"stages\[1\]\.metric: 'bleu'"),
    "data": (
        lambda folder: wrong(folder, 1, task=replaced(text_task(folder), data={"train": "none.csv"})),
        DataError,
        r"stages\[1\]",
    ),
    "adapter": (
        lambda folder: wrong(folder, 1, strategy=LoRA(rank=2)),
        ConfigError,
        r"stages\[2\]\.task\.model: the stage before, 'probe', saves an adapter",
    ),
    "average of another task": (
        lambda folder: [*series(folder)[:2], Stage("mean", Average(start="adapt", end="probe"))],
        ConfigError,
        r"stages\[2\] \(mean\): average: the two models are not alike",
    ),
    "average of an adapter": (
        lambda folder: [*wrong(folder, 2, strategy=LoRA(rank=2))],
        ConfigError,
        r"stages\[3\] \(mean\): average: one of the two models is an adapter",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_any_stage_is_known_before_the_first_trains(tmp_path, fault):
    make, kind, expected = FAULTS[fault]
    with pytest.raises(kind, match=expected):
        plan_stages(make(tmp_path), output_dir=tmp_path / "series")
    with pytest.raises(kind, match=expected):
        run_stages(make(tmp_path), output_dir=tmp_path / "series", show="nothing")
    assert not (tmp_path / "series").exists()


def test_a_refused_series_moves_and_leaves_nothing(tmp_path):
    root = tmp_path / "series"
    root.mkdir()
    for held in ([], ["precious.txt"]):
        for name in held:
            (root / name).write_text("old")
        with pytest.raises(ConfigError, match="bleu"):
            run_stages(wrong(tmp_path, 0, metric="bleu"), output_dir=root, existing="overwrite", config_text="a: 1\n")
        assert os.listdir(root) == held
    assert not list(tmp_path.glob("series.old*"))


def test_messages_name_their_stage():
    assert in_stage("optimizer.lr: too high", 1, "probe") == "stages[1].optimizer.lr: too high"
    assert in_stage("no such file", 1, "probe") == "stages[1] (probe): no such file"
    assert in_stage("update 3: loss nan", 0, "adapt") == "stages[0] (adapt): update 3: loss nan"
