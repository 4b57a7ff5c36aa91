"""A checkpoint whose files are as they were written, and which is still not this run's, is never trained over."""

from __future__ import annotations

import copy
import dataclasses
import math
import shutil
import warnings

import pytest
import torch

from finetune.checkpoints.manifest import DamagedError
from finetune.checkpoints.reading import newest_good, read_checkpoint
from finetune.checkpoints.writing import write_checkpoint
from finetune.errors import RunFolderError, StorageError
from finetune.optimizers import SGD
from finetune.training.checkpoint_contents import check_contents, not_finite
from tests.integration.test_reload import UNFREEZE, cut, under_way
from tests.integration.test_resume import finished
from tests.runs import run, text_task


def parts(found) -> tuple[dict, dict]:
    """Tensors and documents of a checkpoint, free to be changed."""
    return {stem: dict(part) for stem, part in found.tensors.items()}, copy.deepcopy(dict(found.documents))


def some(part: dict, ending: str = "") -> str:
    """A name in it, of a tensor with two dimensions."""
    return min(name for name, tensor in part.items() if name.endswith(ending) and tensor.ndim == 2)


def lied(tensors: dict, documents: dict) -> None:
    """Make the number of tensors right again, as a writer with a fault would have."""
    documents["progress"]["tensors"] = {stem: len(part) for stem, part in tensors.items()}


TENSORS = {
    "a weight is missing": lambda of: of["model"].pop(some(of["model"])),
    "a weight of another run": lambda of: of["model"].update({"odd.weight": torch.zeros(2)}),
    "a weight cut off": lambda of: of["model"].update({some(of["model"]): of["model"][some(of["model"])][:-1]}),
    "a weight of another type": lambda of: of["model"].update(
        {some(of["model"]): of["model"][some(of["model"])].half()}
    ),
    "a weight that is no number": lambda of: of["model"].update(
        {some(of["model"]): torch.full_like(of["model"][some(of["model"])], math.nan)}
    ),
    "a moment is missing": lambda of: of["optimizer"].pop(some(of["optimizer"], "exp_avg")),
    "a moment of another shape": lambda of: of["optimizer"].update(
        {some(of["optimizer"], "exp_avg"): torch.zeros(1, 1)}
    ),
    "a moment without a shape": lambda of: of["optimizer"].update(
        {some(of["optimizer"], "exp_avg"): torch.tensor(0.0)}
    ),
    "moments of another run": lambda of: of["optimizer"].update({"odd.weight/exp_avg": torch.zeros(2)}),
    "a step beyond the run's": lambda of: of["optimizer"].update({step(of): torch.tensor(99.0)}),
    "a step before the start": lambda of: of["optimizer"].update({step(of): torch.tensor(-1.0)}),
    "a step that is no number": lambda of: of["optimizer"].update({step(of): torch.tensor(math.nan)}),
    "a step without end": lambda of: of["optimizer"].update({step(of): torch.tensor(math.inf)}),
    "half a step": lambda of: of["optimizer"].update({step(of): torch.tensor(0.5)}),
    "no weights": lambda of: of.pop("model"),
    "no moments": lambda of: of.pop("optimizer"),
    "tensors of nobody": lambda of: of.update(odd={"weight": torch.zeros(2)}),
}
DOCUMENTS = {
    "no progress": lambda of: of.pop("progress"),
    "no plan": lambda of: of.pop("plan"),
    "no scaler": lambda of: of["progress"].pop("scaler"),
    "a scale of nothing": lambda of: of["progress"]["scaler"].update(scale=0.0),
    "a scaler with more": lambda of: of["progress"]["scaler"].update(odd=1),
    "no step": lambda of: of["progress"].pop("step"),
    "another step": lambda of: of["progress"].update(step=1),
    "a step in words": lambda of: of["progress"].update(step="3"),
    "a step that is a truth": lambda of: of["progress"].update(step=True),
    "losses in words": lambda of: of["progress"].update(losses="abc"),
    "a loss in words": lambda of: of["progress"]["losses"].update(total="abc"),
    "a time before the start": lambda of: of["progress"].update(seconds=-1.0),
    "no time": lambda of: of["progress"].update(seconds=math.nan),
    "a time beyond all numbers": lambda of: of["progress"].update(seconds=10**400),
    "stopped perhaps": lambda of: of["progress"].update(stopped_early=1),
    "an evaluation to come": lambda of: of["progress"]["evaluations"].append([99, 0.5]),
    "an evaluation twice": lambda of: of["progress"]["evaluations"].append(of["progress"]["evaluations"][-1]),
    "an evaluation of one number": lambda of: of["progress"]["evaluations"].append([3]),
    "evaluations that are none": lambda of: of["progress"].update(evaluations=7),
    "no metrics of the best": lambda of: of["progress"]["metrics"].clear(),
    "metrics in words": lambda of: of["progress"].update(metrics={"3": {"accuracy": "high"}}),
    "metrics that are none": lambda of: of["progress"].update(metrics=[]),
    "no place in the log": lambda of: of["progress"].pop("log_offset"),
    "a place before the log": lambda of: of["progress"].update(log_offset=-1),
    "made nowhere": lambda of: of["progress"].pop("made_on"),
    "made on half a machine": lambda of: of["progress"]["made_on"].pop("threads"),
    "made on threads in words": lambda of: of["progress"]["made_on"].update(threads="2"),
    "something of another version": lambda of: of["progress"].update(odd=1),
    "another number of tensors": lambda of: of["progress"]["tensors"].update(optimizer=1),
    "no number of tensors": lambda of: of["progress"].pop("tensors"),
}


def step(of: dict) -> str:
    return min(name for name in of["optimizer"] if name.endswith("/step"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped after step 3, with an evaluation: the task, and the folder."""
    root = tmp_path_factory.mktemp("stopped")
    return text_task(root), cut(text_task(root), root / "run", 3, evaluate_every="2 steps", strategy=UNFREEZE)


@pytest.fixture(scope="module")
def going(stopped):
    with under_way(*stopped, evaluate_every="2 steps", strategy=UNFREEZE) as (_, prepared, optimizer, _):
        yield prepared, optimizer, newest_good(stopped[1] / "checkpoints")


def test_what_the_run_saved_is_accepted(going):
    prepared, optimizer, found = going
    check_contents(found, prepared=prepared, optimizer=optimizer)


@pytest.mark.parametrize("change", TENSORS)
def test_tensors_that_are_not_the_runs_are_found(going, change):
    prepared, optimizer, found = going
    tensors, documents = parts(found)
    TENSORS[change](tensors)
    if tensors.keys() == found.tensors.keys():
        lied(tensors, documents)
    with pytest.raises(DamagedError, match="safetensors"):
        changed = dataclasses.replace(found, tensors=tensors, documents=documents)
        check_contents(changed, prepared=prepared, optimizer=optimizer)


@pytest.mark.parametrize("change", DOCUMENTS)
def test_documents_that_are_not_the_runs_are_found(going, change):
    prepared, optimizer, found = going
    tensors, documents = parts(found)
    DOCUMENTS[change](documents)
    with pytest.raises(DamagedError, match=r"(progress|plan)\.json: "):
        changed = dataclasses.replace(found, tensors=tensors, documents=documents)
        check_contents(changed, prepared=prepared, optimizer=optimizer)


def test_every_moment_counts(going):
    """Those of a whole parameter: it would begin anew, and nobody would hear of it."""
    prepared, optimizer, found = going
    tensors, documents = parts(found)
    name = some(tensors["optimizer"], "exp_avg").rpartition("/")[0]
    for key in ("step", "exp_avg", "exp_avg_sq"):
        del tensors["optimizer"][f"{name}/{key}"]
    with pytest.raises(DamagedError, match="not as many as were saved"):
        changed = dataclasses.replace(found, tensors=tensors, documents=documents)
        check_contents(changed, prepared=prepared, optimizer=optimizer)


def test_another_plan_is_no_damage(going):
    prepared, optimizer, found = going
    tensors, documents = parts(found)
    documents["plan"]["seed"] = 7
    with pytest.raises(RunFolderError, match=r"made under another plan.*\n  seed: 7"):
        changed = dataclasses.replace(found, tensors=tensors, documents=documents)
        check_contents(changed, prepared=prepared, optimizer=optimizer)


def rewrite(folder, step: int, change) -> None:
    """Write a checkpoint anew, with right checksums."""
    found = read_checkpoint(folder / "checkpoints" / f"step-{step:06d}")
    tensors, documents = parts(found)
    change(tensors, documents)
    shutil.rmtree(found.path)
    write_checkpoint(found.path.parent, step, tensors=tensors, documents=documents, run_id=found.run_id)


def without_a_weight(tensors: dict, documents: dict) -> None:
    tensors["model"].pop(some(tensors["model"]))


@pytest.mark.parametrize("optimizer", [{}, {"optimizer": SGD(lr=0.1)}])
def test_a_run_goes_on_from_the_one_before(tmp_path, optimizer):
    task = text_task(tmp_path)
    run(task, output_dir=str(tmp_path / "whole"), **optimizer)
    folder = cut(task, tmp_path / "run", 3, **optimizer)
    rewrite(folder, 3, without_a_weight)
    with pytest.warns(UserWarning, match="passed over") as told:
        run(task, output_dir=str(folder), existing="resume", **optimizer)
    assert len([one for one in told if "passed over" in str(one.message)]) == 1
    assert finished(folder) == finished(tmp_path / "whole")


def test_a_run_that_has_no_other_ends(tmp_path):
    task = text_task(tmp_path)
    folder = cut(task, tmp_path / "run", 3)
    for number in (1, 2, 3):
        rewrite(folder, number, without_a_weight)
    before = {path: path.read_bytes() for path in (folder / "checkpoints").rglob("*") if path.is_file()}
    with warnings.catch_warnings(), pytest.raises(StorageError, match=r"model\.safetensors: .*: missing") as refused:
        warnings.simplefilter("ignore")
        run(task, output_dir=str(folder), existing="resume")
    assert refused.value.exit_code == 74
    assert {path: path.read_bytes() for path in (folder / "checkpoints").rglob("*") if path.is_file()} == before


def test_large_numbers_are_finite_though_their_sum_is_not():
    large = torch.full((4,), torch.finfo(torch.float32).max)
    assert not_finite({"weight": large, "other": torch.ones(2)}, {"weight"}) == ""
    for bad in (math.nan, math.inf, -math.inf):
        assert not_finite({"mask": torch.tensor(bad), "weight": torch.tensor([1.0, bad])}, {"weight"}) == "weight"
    assert not_finite({"weight": torch.tensor([math.inf, -math.inf])}, {"weight"}) == "weight"
