"""The newest good checkpoint put back into a run under way: weights and moments are its, whatever came after."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from finetune.checkpoints.reading import newest_good, read_checkpoint
from finetune.checkpoints.run_folder import open_run_folder
from finetune.errors import PreemptedError, StorageError
from finetune.policies import Checkpointing
from finetune.strategies import GradualUnfreeze
from finetune.training.fit import optimizer_of
from finetune.training.placement import placed
from finetune.training.prepare import prepare
from finetune.training.ranks import Ranks
from finetune.training.saving import Saver
from finetune.training.sharding import from_first, model_state, optimizer_state
from tests.distributed.two_ranks import on_ranks
from tests.runs import STRATEGIES, config, digest, run, text_task

# The head trains from the start; every further layer begins only after step 2.
UNFREEZE = GradualUnfreeze(over="60%")
SETTINGS = {"checkpoint": Checkpointing(every="1 steps", keep_last=3)}


def cut(task, folder: Path, stop: int, **changes) -> Path:
    """A run that was stopped after a step."""
    with pytest.raises(PreemptedError):
        run(task, output_dir=str(folder), stop_at=stop, **{**SETTINGS, **changes})
    return folder


@contextmanager
def under_way(task, folder: Path, **changes) -> Iterator[tuple]:
    """A run that has gone on from its newest checkpoint: what saves, and what it trains."""
    settings = config(task, output_dir=str(folder), **{**SETTINGS, **changes})
    with placed(settings.precision) as placement:
        prepared = prepare(settings, placement)
        optimizer = optimizer_of(prepared, placement)
        opened = open_run_folder(folder, resume=True) if placement.ranks.is_first else None
        saver = Saver(prepared, placement, optimizer, folder=opened, has_folder=True, extra={})
        try:
            yield saver, prepared, optimizer, saver.resume()
        finally:
            saver.close()
            if opened is not None:
                opened.close()


def go_wrong(optimizer) -> None:
    """Updates of everything, also of what does not train yet."""
    for _ in range(3):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(True)
                parameter.grad = torch.full_like(parameter, 7.0)
            group["lr"] = 0.5
        optimizer.step()
    optimizer.zero_grad()


def stands(prepared, optimizer) -> dict[str, str]:
    return {
        "model": digest(model_state(prepared.forward, prepared.saved_names)),
        "optimizer": digest(optimizer_state(optimizer)),
    }


def reloaded(task, folder: Path, **changes) -> tuple:
    with under_way(task, folder, **changes) as (saver, prepared, optimizer, _):
        go_wrong(optimizer)
        spoiled = stands(prepared, optimizer)
        return saver.reload(), spoiled, stands(prepared, optimizer)


@pytest.mark.parametrize("strategy", [UNFREEZE, STRATEGIES["lora"]])
def test_weights_and_moments_are_those_of_the_checkpoint(tmp_path, strategy):
    folder = cut(text_task(tmp_path), tmp_path / "run", 2, strategy=strategy)
    saved = {stem: digest(part) for stem, part in newest_good(folder / "checkpoints").tensors.items()}
    step, spoiled, after = reloaded(text_task(tmp_path), folder, strategy=strategy)
    assert step == 2 and after == saved
    assert not set(spoiled.values()) & set(saved.values())


@pytest.mark.parametrize("sharded", [False, True])
def test_all_ranks_have_them(tmp_path, sharded):
    task = text_task(tmp_path)
    folder = cut(task, tmp_path / "run", 2, strategy=UNFREEZE)
    saved = {stem: digest(part) for stem, part in newest_good(folder / "checkpoints").tensors.items()}
    for step, _, after in on_ranks(lambda: reloaded(task, folder, strategy=UNFREEZE), sharded=sharded):
        assert step == 2 and after == saved


def test_tensors_of_every_type_reach_every_rank():
    kinds = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)
    sent = {str(kind): (torch.arange(6) % 2 if kind is torch.bool else torch.arange(6)).to(kind) for kind in kinds}
    sent |= {"empty": torch.empty(0, 3), "scalar": torch.tensor(0.1), "turned": torch.rand(4, 3).T.contiguous()}
    sent["nan"] = torch.tensor([float("nan"), -0.0])

    def work():
        ranks = Ranks(torch.device("cpu"))
        return from_first(ranks, {"a": sent, "b": {}} if ranks.is_first else {"c": {"x": torch.ones(1)}})

    for found in on_ranks(work):
        assert found.keys() == {"a", "b"} and digest(found["a"]) == digest(sent)


def test_a_save_in_flight_is_what_it_goes_back_to(tmp_path):
    task = text_task(tmp_path)
    folder = cut(task, tmp_path / "run", 2)
    with under_way(task, folder) as (saver, prepared, optimizer, state):
        go_wrong(optimizer)
        state.step = 5  # and of that step are the moments now
        expected = stands(prepared, optimizer)
        saver.save(state)
        go_wrong(optimizer)
        assert saver.reload() == 5 and stands(prepared, optimizer) == expected
        assert state.step == 5


def test_without_a_checkpoint_nothing_changes(tmp_path):
    with under_way(text_task(tmp_path), tmp_path / "run") as (saver, prepared, optimizer, state):
        assert state is None
        before = stands(prepared, optimizer)
        assert saver.reload() is None and stands(prepared, optimizer) == before


def test_a_damaged_one_is_passed_over(tmp_path):
    task = text_task(tmp_path)
    folder = cut(task, tmp_path / "run", 2)
    with under_way(task, folder) as (saver, prepared, optimizer, _):
        (folder / "checkpoints" / "step-000002" / "model.safetensors").write_bytes(b"rot")
        go_wrong(optimizer)
        with pytest.warns(UserWarning, match="passed over") as told:
            assert saver.reload() == 1
        assert len(told) == 1
        good = read_checkpoint(folder / "checkpoints" / "step-000001")
        assert digest(good.tensors["model"]) == stands(prepared, optimizer)["model"]


def test_ranks_end_alike_when_none_can_be_read(tmp_path):
    task = text_task(tmp_path)
    folder = cut(task, tmp_path / "run", 1)

    def fail():
        with under_way(task, folder) as (saver, _, _, _):
            if os.environ["RANK"] == "0":
                for file in (folder / "checkpoints").glob("step-*/model.safetensors"):
                    file.write_bytes(b"rot")
            try:
                saver.reload()
            except StorageError as error:
                return str(error)

    first, second = on_ranks(fail)
    assert first == second and "model.safetensors: 3 bytes, expected" in first
