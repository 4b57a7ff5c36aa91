"""What another number of processes, or weights cut over them, changes in a run: nothing that can be named."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.errors import PreemptedError
from finetune.optimizers import AdamW
from finetune.policies import Checkpointing
from tests.distributed.two_ranks import on_ranks
from tests.runs import STRATEGIES, digest, history, run, text_task, weights, without_dropout

EPOCH = 4  # updates, of 26 examples
SETTINGS = {"length": "40 steps", "log_every": "1 steps", "evaluate_every": "7 steps", "optimizer": AdamW(lr=1e-3)}


def outcome(task, strategy, max_grad_norm):
    result = run(
        task,
        strategy=STRATEGIES[strategy],
        max_grad_norm=max_grad_norm,
        checkpoint=Checkpointing(keep_best=0),
        evaluate_every="3 steps",
    )
    return weights(result.model), result.state.evaluations


def by_rank(folder, strategy, *, max_grad_norm):
    """What both ranks came to under DDP and under FSDP2, in fp32 and with dropout."""
    task = text_task(folder)
    return [on_ranks(lambda: outcome(task, strategy, max_grad_norm), sharded=sharded) for sharded in (False, True)]


def one_of(names, chosen):
    """One of them by default, the others in the drill."""
    return [name if name == chosen else pytest.param(name, marks=pytest.mark.drill) for name in names]


@pytest.mark.parametrize("strategy", one_of(STRATEGIES, "gradual_unfreeze"))
def test_fsdp2_is_ddp_bit_for_bit(tmp_path, strategy):
    plain, sharded = by_rank(tmp_path, strategy, max_grad_norm=0.0)
    assert len({digest(found) for found, _ in (*plain, *sharded)}) == 1
    assert plain[0][1] == plain[1][1] == sharded[0][1] == sharded[1][1]


@pytest.mark.parametrize("strategy", one_of(STRATEGIES, "full"))
def test_fsdp2_is_ddp_with_clipping(tmp_path, strategy):
    """To 1e-6: the norm is summed in another order. The clip is tight, so that it acts at every step."""
    plain, sharded = by_rank(tmp_path, strategy, max_grad_norm=0.05)
    for name, tensor in plain[0][0].items():
        torch.testing.assert_close(sharded[0][0][name], tensor, rtol=1e-6, atol=1e-6)
    assert digest(sharded[0][0]) == digest(sharded[1][0]) and digest(plain[0][0]) == digest(plain[1][0])


@dataclass(frozen=True)
class Drawn:
    """A task without dropout that writes down which examples each update was made of, in a file of each rank."""

    task: Any
    folder: str

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.task, name)

    def load_model(self):
        loaded = self.task.load_model()
        without_dropout(loaded.module)
        return loaded

    def forward(self, model, batch, progress):
        if progress.seed:  # else it is no update: an evaluation, or a first look at what a forward needs
            seen = batch["index"][batch["weights"] > 0].tolist()
            with Path(self.folder, f"seen-{os.environ.get('RANK', 'alone')}").open("a") as file:
                file.write(json.dumps([progress.step, seen]) + "\n")
        return self.task.forward(model, batch, progress)


def seen(folder):
    """How often each example was in an update, by epoch."""
    epochs: dict[int, Counter] = {}
    for file in folder.glob("seen-*"):
        for step, examples in map(json.loads, file.read_text().splitlines()):
            epochs.setdefault(step // EPOCH, Counter()).update(examples)
    return epochs


def losses(folder):
    return [line["loss"] for line in history(folder) if "loss" in line]


def parts_2_1_2(folder, sharded):
    task = Drawn(text_task(folder), str(folder))
    (folder / "whole").mkdir()
    undisturbed = Drawn(task.task, str(folder / "whole"))
    on_ranks(lambda: run(undisturbed, output_dir=str(folder / "whole-run"), **SETTINGS).metrics, sharded=sharded)

    def part(stop_at=None):
        existing = "resume" if (folder / "run").exists() else "refuse"
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                run(task, output_dir=str(folder / "run"), existing=existing, stop_at=stop_at, **SETTINGS)
            except PreemptedError:
                assert stop_at is not None
        return [str(each.message) for each in told if "made elsewhere" in str(each.message)]

    return on_ranks(lambda: part(13), sharded=sharded), part(27), on_ranks(part, sharded=sharded)


@pytest.mark.parametrize("sharded", one_of([False, True], False))
def test_two_ranks_then_one_then_two(tmp_path, sharded):
    """Each example once in each epoch, the same losses; that the bits are not promised is said once, by rank 0."""
    first, alone, last = parts_2_1_2(tmp_path, sharded)
    everything = Counter(range(26))
    assert seen(tmp_path) == seen(tmp_path / "whole") == {epoch: everything for epoch in range(10)}
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole-run"), rel=1e-5)
    assert len(losses(tmp_path / "run")) == 40
    assert first == [[], []] and len(alone) == 1 and len(last[0]) == 1 and last[1] == []
    assert "step 13 was made elsewhere" in alone[0] and "ranks: 2 -> 1" in alone[0] and "not promised" in alone[0]
    assert "step 27 was made elsewhere" in last[0][0] and "ranks: 1 -> 2" in last[0][0]
    assert ("sharded: false -> true" in last[0][0]) == sharded
