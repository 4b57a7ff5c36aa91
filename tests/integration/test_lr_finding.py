"""Range tests of tiny real models: what they train, and that they leave nothing behind."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune import Sweep, find_lr, fit
from finetune.cli import main
from finetune.config import dump
from finetune.errors import ConfigError
from finetune.lr_finding import sweeping
from finetune.models.loaded import LoadedModel
from finetune.optimizers import SGD, AdamW
from finetune.schedules import WarmupLinear
from finetune.strategies import Freeze
from tests import runs

SWEEP = Sweep(steps=40, start=1e-5, stop=1.0, repeats=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("lr")


@pytest.fixture(scope="module")
def found(folder):
    return find_lr(runs.config(runs.text_task(folder)), sweep=SWEEP, show="nothing")


def test_every_update_is_made_at_its_rate_with_the_plans_ratios(folder, monkeypatch):
    """Seen at the optimizer, with a course of phases of which the last trains most."""
    seen: list[dict[str, float]] = []
    real = sweeping.set_rates

    def seeing(optimizer, setting):
        real(optimizer, setting)
        seen.append({group["group"]: group["lr"] for group in optimizer.param_groups})

    monkeypatch.setattr(sweeping, "set_rates", seeing)
    config = runs.config(runs.text_task(folder), strategy=runs.STRATEGIES["gradual_unfreeze"],
                         optimizer=AdamW(lr=1e-3, head_lr=5e-3), schedule=WarmupLinear(warmup="50%"))  # fmt: skip
    curve = find_lr(config, sweep=SWEEP, show="nothing").curves[0]
    np.testing.assert_allclose(curve.lrs, SWEEP.lrs()[: len(curve.lrs)])
    for lr, rates in zip(curve.lrs, seen, strict=True):
        assert rates["head"] == pytest.approx(5 * lr)
        assert rates["layer.1"] == pytest.approx(0.9 * lr) and rates["layer.0"] == pytest.approx(0.81 * lr)


def test_its_losses_are_those_of_a_run_with_these_rates(folder):
    """A run whose schedule is the sweep sees the same losses: there is one way to make an update."""
    sweep = Sweep(steps=20, start=1e-4, stop=1e-2, repeats=1)

    @dataclass(frozen=True)
    class Exponential:
        def multiplier(self, progress):
            return float(sweep.lrs()[min(progress.step, 19)] / sweep.stop)

        def momentum(self, progress):
            return None

    task = runs.text_task(folder)
    config = runs.config(task, length="20 steps", optimizer=AdamW(lr=1e-2))
    curve = find_lr(config, sweep=sweep, show="nothing").curves[0]
    where = folder / "as-a-run"
    runs.run(task, length="20 steps", schedule=Exponential(), optimizer=AdamW(lr=1e-2), log_every="1 step",
             output_dir=str(where))  # fmt: skip
    losses = [line["loss"] for line in runs.history(where) if "loss" in line]
    np.testing.assert_allclose(curve.losses, losses[: len(curve.losses)], rtol=1e-6)
    assert len(curve.losses) == 20


@dataclass(frozen=True)
class Shared:
    """A task that hands out one and the same model."""

    task: Any
    loaded: LoadedModel

    def load_model(self) -> LoadedModel:
        return self.loaded

    def splits(self):
        return self.task.splits()

    def load_split(self, name):
        return self.task.load_split(name)

    def forward(self, model, batch, progress):
        return self.task.forward(model, batch, progress)

    def score(self, predictions):
        return self.task.score(predictions)

    @property
    def metrics(self):
        return self.task.metrics

    @property
    def id2label(self):
        return self.task.id2label


def shared(folder: Path) -> Shared:
    task = runs.text_task(folder)
    torch.manual_seed(0)
    return Shared(task, task.load_model())


@pytest.mark.parametrize("warm_head", [0, 3])
def test_a_run_after_a_range_test_is_the_run_without_it(folder, warm_head):
    """Bit for bit, with dropout, from one model that both are handed."""
    alone = fit(shared(folder), length="6 steps", batch_size=8, optimizer=AdamW(lr=1e-2), show="nothing")
    task = shared(folder)
    before = runs.digest(runs.weights(task.loaded.module))
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    threads = torch.get_num_threads()
    config = runs.config(task)
    find_lr(config, sweep=Sweep(steps=20, repeats=2, warm_head=warm_head), show="nothing")
    assert runs.digest(runs.weights(task.loaded.module)) == before
    assert all(parameter.requires_grad and parameter.grad is None for parameter in task.loaded.module.parameters())
    assert state == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert torch.get_num_threads() == threads
    after = fit(task, length="6 steps", batch_size=8, optimizer=AdamW(lr=1e-2), show="nothing")
    assert runs.digest(runs.weights(after.model)) == runs.digest(runs.weights(alone.model))


def test_it_moves_the_weights_while_it_sweeps(folder, monkeypatch):
    """What is put back had changed; else the test above would hold for a sweep that trains nothing."""
    moved = []
    real = sweeping.Updates.close

    def looking(self):
        moved.append(runs.digest(runs.weights(self._prepared.forward.model)))
        real(self)

    monkeypatch.setattr(sweeping.Updates, "close", looking)
    task = shared(folder)
    before = runs.digest(runs.weights(task.loaded.module))
    find_lr(runs.config(task), sweep=Sweep(steps=20, repeats=2), show="nothing")
    assert before not in moved and len(set(moved)) == 2


def test_repeats_have_seeds_of_their_own_and_the_same_seed_gives_the_same(folder, found):
    config = runs.config(runs.text_task(folder))
    again = find_lr(config, sweep=Sweep(steps=40, start=1e-5, stop=1.0, repeats=2), show="nothing")
    assert [curve.seed for curve in again.curves] == [42, 43]
    assert again.curves[0].losses.tolist() == found.curves[0].losses.tolist()
    assert again.curves[1].losses[0] != found.curves[0].losses[0]


def test_a_loss_that_is_not_finite_ends_a_sweep(folder):
    found = find_lr(
        runs.config(runs.text_task(folder), optimizer=SGD(lr=1e-2), max_grad_norm=0.0),
        sweep=Sweep(steps=20, start=1e3, stop=1e30, repeats=1, limit=1e30),
        show="nothing",
    )
    assert found.curves[0].ended == "not finite" and found.suggestion is None and found.doubts
    assert np.isfinite(found.curves[0].losses).all()


def test_a_head_that_is_warm_begins_lower(folder):
    config = runs.config(runs.image_task(folder))
    cold, warm = (
        find_lr(config, sweep=Sweep(steps=20, repeats=1, warm_head=steps, warm_head_lr=1e-2), show="nothing").curves[0]
        for steps in (0, 30)
    )
    assert warm.losses[:5].mean() < 0.7 * cold.losses[:5].mean()


def test_the_optimizer_forgets_the_warming(folder, monkeypatch):
    known = []
    real = sweeping.set_rates

    def seeing(optimizer, setting):
        known.append((sorted(setting.lrs), len(optimizer.state)))
        real(optimizer, setting)

    monkeypatch.setattr(sweeping, "set_rates", seeing)
    find_lr(runs.config(runs.image_task(folder)), sweep=Sweep(steps=20, repeats=1, warm_head=2), show="nothing")
    assert known[0] == (["head"], 0) and known[1][0] == ["head"] and known[1][1] > 0
    assert known[2] == (["embeddings", "head", "layer.0", "layer.1"], 0) and known[3][1] > known[1][1]


def test_warming_the_head_of_a_run_that_trains_nothing_else_is_an_error(folder):
    config = runs.config(runs.text_task(folder), strategy=Freeze(trainable=("head",)))
    with pytest.raises(ConfigError, match="--warm-head 5: without effect, as this plan trains nothing but the head"):
        find_lr(config, sweep=Sweep(steps=20, warm_head=5), show="nothing")


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": runs.STRATEGIES["lora"]},
        {"order": "bucketed", "micro_batch": "3 examples"},
        {"length": "3 steps"},
    ],
    ids=["lora", "cut", "longer than the run"],
)
def test_it_runs_for(folder, changes):
    found = find_lr(runs.config(runs.text_task(folder), **changes), sweep=SWEEP, show="nothing")
    assert len(found.curves[0].lrs) > 10


@pytest.fixture
def cli(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def ran(*words):
        with pytest.raises(SystemExit) as end:
            main(argv=[str(word) for word in words])
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return ran


@pytest.fixture(scope="module")
def tiny(folder) -> Path:
    optimizer = AdamW(lr=1e-3, head_lr=1e-2)
    config = runs.config(runs.image_task(folder), optimizer=optimizer, output_dir=str(folder / "out"))
    (folder / "tiny.yaml").write_text(dump(config))
    return folder / "tiny.yaml"


WORDS = ("--steps", 40, "--from", 1e-5, "--to", 1, "--repeats", 2)


def test_the_verb_prints_a_suggestion_that_can_be_pasted_and_writes_no_folder(cli, tiny, folder):
    code, out, _ = cli("lr-find", tiny, *WORDS, "--plot", folder / "lr.png")
    assert code == 0
    found = re.search(r"suggestion +optimizer.lr=(\S+) optimizer.head_lr=(\S+)", out)
    assert float(found[2]) == pytest.approx(10 * float(found[1]), rel=0.06)
    assert re.search(r"reliable +(yes|no)", out) and re.search(r"layer\.0 +\S+e-", out)
    assert (folder / "lr.png").stat().st_size > 10_000 and not (folder / "out").exists()
    assert cli("plan", tiny, f"optimizer.lr={found[1]}", f"optimizer.head_lr={found[2]}")[0] == 0


def test_json(cli, tiny):
    found = json.loads(cli("lr-find", tiny, *WORDS, "--json")[1])
    assert found["sweep"]["steps"] == 40 and len(found["curves"]) == 2
    assert isinstance(found["reliable"], bool) and found["reliable"] == (not found["doubts"])
    assert len(found["curves"][0]["lrs"]) == len(found["curves"][0]["losses"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", 3), "--steps: got 3; expected at least 20"),
        (("--from", 0), "--from: got 0.0; expected above 0"),
        (("--from", 1, "--to", 2), "--to: got 2; expected at least ten times the first rate, 1"),
        (("--warm-head-lr", 0.1), "--warm-head-lr 0.1: without effect without --warm-head"),
        (("--warm-head", 5, "--warm-head-lr", 0), "--warm-head-lr: got 0.0; expected above 0"),
        (("--plot", "x.gif"), "--plot x.gif: end the name in"),
        (("optimizer.lr=x",), "optimizer.lr"),
    ],
)
def test_a_mistake_is_one_message(cli, tiny, words, message):
    code, out, err = cli("lr-find", tiny, *words)
    assert code == 2 and not out and message in err and "Traceback" not in err
