"""Memory that runs out in an update: on every rank the same update again, in smaller parts, with the same result."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from finetune.cli import reporting
from finetune.errors import ConfigError, FinetuneError, PreemptedError, RankLostError
from finetune.models.loaded import LoadedModel
from finetune.optimizers import SGD
from finetune.speed import Speed
from finetune.strategies import Freeze, GradualUnfreeze
from finetune.tasks.data_map import DataMap
from finetune.training import loop
from finetune.training.fit import plan_run
from tests.distributed.two_ranks import on_ranks
from tests.forked import ended_ranks
from tests.integration.test_resume import check
from tests.poisoned import LACKING, Tight, here
from tests.runs import Exact, assert_close, config, digest, history, run, text_task, weights, without_dropout


def told(folder) -> list[tuple]:
    lines = [line for line in history(folder) if "micro_batch" in line]
    assert all(line["why"] == "out of memory" for line in lines)
    return [(line["step"], line["was"], line["micro_batch"]) for line in lines]


@pytest.mark.parametrize(
    ("kind", "when"), [*((kind, "before") for kind in LACKING), ("device", "after"), ("cpu", "backward")]
)
def test_the_run_is_that_of_the_smaller_cut(tmp_path, kind, when):
    """Bit for bit, dropout on: nothing of what was broken off is left in weights, moments or random numbers."""
    task = text_task(tmp_path)
    cut = run(task, micro_batch="2 examples")
    found = run(Tight(task, 3, kind=kind, when=when), micro_batch="8 examples", output_dir=str(tmp_path / "run"))
    assert digest(weights(found.model)) == digest(weights(cut.model))
    assert told(tmp_path / "run") == [(0, "8 examples", "4 examples"), (0, "4 examples", "2 examples")]
    assert found.state.halvings == 2 and found.metrics == cut.metrics


@pytest.mark.parametrize("workers", [0, 2])
def test_in_the_middle_the_result_is_kept(tmp_path, workers):
    task = Exact(text_task(tmp_path))
    settings = {"workers": workers, "strategy": GradualUnfreeze(over="60%")}
    plain = run(task, **settings)
    found = run(Tight(task, 4, since=5), output_dir=str(tmp_path / "run"), **settings)
    assert_close(weights(found.model), weights(plain.model))
    assert told(tmp_path / "run") == [(5, "32 examples", "4 examples")]  # at once to what makes a difference


def test_tokens_are_halved_until_fewer_examples_go_together(tmp_path):
    task = Exact(text_task(tmp_path))
    found = run(Tight(task, 2), micro_batch="4000 tokens", output_dir=str(tmp_path / "run"))
    assert_close(weights(found.model), weights(run(task).model))
    assert all(was.endswith("tokens") and now.endswith("tokens") for _, was, now in told(tmp_path / "run"))


@pytest.mark.parametrize("stop", [3, 4, 6])
def test_a_resumed_run_keeps_the_cut(tmp_path, stop):
    """Exact, dropout on: the resumed part would not come upon it by itself, or later."""
    check(Tight(text_task(tmp_path), 4, since=4), tmp_path, stop, log_every="2 steps", evaluate_every="3 steps")


@dataclass(frozen=True)
class Plain(Exact):
    """Without dropout, in fp32: what reads figures late needs a fused kernel."""

    def load_model(self) -> LoadedModel:
        loaded = self.task.load_model()
        without_dropout(loaded.module)
        return loaded

    def forward(self, model, batch, progress):
        return self.task.forward(model, batch, progress)


@pytest.mark.parametrize("unread", [0, 1])
@pytest.mark.parametrize("when", ["before", "after"])
def test_one_rank_alone(tmp_path, monkeypatch, unread, when):
    """Both try again, also where the other has gone on to the next update; nothing is remembered twice."""
    monkeypatch.setattr(loop, "num_unread", lambda optimizer, placement: unread)
    task = DataMap(base=Plain(text_task(tmp_path)))
    settings = {"length": "7 steps", "log_every": "7 steps", "evaluate_every": "7 steps", "optimizer": SGD(lr=0.1)}

    def work():
        found = []
        for each in (task, Tight(task, 1, rank=1, since=3, when=when)):
            result = run(each, micro_batch="3 examples", **settings)
            found.append(({**weights(result.model), **result.state.remembered}, result.state.halvings))
        return found

    (plain, first), (_, second) = on_ranks(work)
    assert (plain[1], first[1], second[1]) == (0, 1, 1)
    assert digest(first[0]) == digest(second[0])
    torch.testing.assert_close(first[0], plain[0], rtol=1e-4, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("when", ["before", "backward"])
def test_one_rank_alone_gives_the_same_result(tmp_path, when):
    """A backward that breaks off before the last micro-batch has exchanged nothing yet."""
    task = Exact(text_task(tmp_path))
    settings = {"micro_batch": "3 examples", "length": "5 steps"}

    def work():
        return weights(run(Tight(task, 2, rank=1, when=when), **settings).model)

    first, second = on_ranks(work)
    assert digest(first) == digest(second)
    assert_close(first, weights(run(task, **settings).model))


def test_ranks_with_unequally_many_examples_halve_alike(tmp_path):
    """Of three, one rank has a single one, which needs no smaller part."""
    task = Exact(text_task(tmp_path))

    def work():
        result = run(Tight(task, 1, rank=0, since=1), micro_batch="2 examples", batch_size=3, length="2 steps")
        return result.state.halvings, digest(weights(result.model))

    first, second = on_ranks(work)
    assert first == second and first[0] == 1


def outcomes(task, *, sharded: bool = False, **settings) -> tuple[str, str]:
    def work():
        try:
            run(task, **{"length": "3 steps", **settings})
        except FinetuneError as error:
            return f"{type(error).__name__}: {error}"

    first, second = on_ranks(work, sharded=sharded)
    return first, second


def test_one_example_that_does_not_fit_ends_the_run_on_every_rank(tmp_path):
    first, second = outcomes(Tight(text_task(tmp_path), 0, rank=1, since=1), micro_batch="2 examples")
    assert first == second
    assert first.startswith("ConfigError: out of memory at update 1, with one example in each forward: lower task.max")


@pytest.mark.parametrize(
    ("size", "remedy"), [("32", "write micro_batch: 16 examples, or lower task"), ("1", "lower ")]
)
def test_nothing_left_at_all_is_told_too(tmp_path, size, remedy):
    told = f"out of memory after step 1 with micro_batch: {size} examples; .*nothing is left: {remedy}"
    with pytest.raises(ConfigError, match=told):
        run(Tight(text_task(tmp_path), -1, since=1), micro_batch=f"{size} examples")


def test_what_cannot_be_tried_again_is_one_message(tmp_path):
    """Of the sharded rank that lacks memory; the other loses it, and does not hang."""
    task = Tight(text_task(tmp_path), 1, rank=1, since=1)
    first, second = outcomes(task, micro_batch="4 examples", sharded=True)
    assert first.startswith(f"{RankLostError.__name__}: ")
    assert second.startswith("ConfigError: out of memory after step 1 with micro_batch: 4 examples; it cannot be ")
    assert "write micro_batch: 2 examples, or lower task.max_length" in second


@pytest.mark.parametrize("where", ["update", "evaluation"])
def test_the_rank_that_lacks_memory_tells_it(tmp_path, monkeypatch, where):
    """Where that is not the first, which only loses it."""
    monkeypatch.setattr(reporting, "_HEAD_START", 0)
    at = {"when": "backward"} if where == "update" else {"evaluates": True}
    task = Tight(text_task(tmp_path), 1, rank=1, since=1, **at)
    settings = {"micro_batch": "4 examples", "length": "3 steps", "output_dir": str(tmp_path / "run")}
    first, second = ended_ranks(lambda: run(task, **settings))
    step = 1 if where == "update" else 3
    assert (first.code, second.code) == (76, 2) and first.err.count("error: ") == second.err.count("error: ") == 1
    assert f"error: process 1: out of memory after step {step} with micro_batch: 4 examples; " in second.err
    assert "write micro_batch: 2 examples and go on with --resume, or lower task" in second.err


def test_a_size_that_is_asked_for_is_not_halved_again(tmp_path):
    """Who goes on with the smaller one that a message names gets that."""
    task, folder = Tight(text_task(tmp_path), 4), str(tmp_path / "run")
    with pytest.raises(PreemptedError):
        run(task, micro_batch="8 examples", output_dir=folder, stop_at=3)
    assert run(task, micro_batch="4 examples", output_dir=folder, existing="resume").state.halvings == 0


class Lacking:
    """Memory runs out where no forward is computed."""

    def should_stop(self, evaluations):
        raise LACKING["cpu"]()


def test_anywhere_else_it_is_one_message_too(tmp_path):
    folder, told = tmp_path / "run", r"out of memory \(\[enforce fail at alloc_cpu.*\): lower task.max_length"
    with pytest.raises(ConfigError, match=told):
        run(text_task(tmp_path), stopping=Lacking(), output_dir=str(folder), length="1 steps")
    assert history(folder)[-1]["exit_code"] == 2

    class Large(Tight):
        def load_model(self):
            raise LACKING["device"]()

    for door in (run, lambda task: plan_run(config(task))):
        with pytest.raises(ConfigError, match=r"out of memory \(CUDA out of memory"):
            door(Large(text_task(tmp_path), 0))


@dataclass(frozen=True)
class AtTheEnd(Tight):
    """Memory runs out when the finished run scores the test split."""

    def splits(self):
        return ("train", "validation", "test")

    def load_split(self, name):
        return self.task.load_split("validation" if name == "test" else name)

    def forward(self, model, batch, progress):
        is_scored = progress.evaluations and progress.evaluations[-1].step == progress.step
        return (super() if is_scored else self.task).forward(model, batch, progress)


def test_the_test_split_is_scored_in_smaller_parts(tmp_path):
    task, settings = Exact(text_task(tmp_path)), {"micro_batch": "4 examples", "length": "2 steps"}
    found = run(AtTheEnd(task, 8, evaluates=True), output_dir=str(tmp_path / "run"), **settings)
    assert told(tmp_path / "run") == [(2, "4 examples", "2 examples")]
    assert found.metrics["test"] == pytest.approx(found.metrics["validation"], rel=1e-8)


@dataclass(frozen=True)
class Narrow(Tight):
    """The model has room for so many words at a time."""

    def load_model(self):
        loaded = self.task.load_model()
        norm = next(module for module in loaded.module.modules() if isinstance(module, nn.LayerNorm))
        norm.register_forward_pre_hook(self._check)
        return loaded

    def forward(self, model, batch, progress):
        return self.task.forward(model, batch, progress)

    def _check(self, module, given):
        if here(self.rank) and given[0].shape[:-1].numel() > self.most:
            raise LACKING[self.kind]()


FROZEN = {
    "strategy": Freeze(),
    "speed": Speed(prefix_cache="memory"),
    "micro_batch": "2 examples",
    "length": "10 steps",
}


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    """Nothing of another test's is found in it, which would be computed no more."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("no_cache")
def test_frozen_layers_are_computed_each_time(tmp_path):
    """Where what is kept of them takes larger batches than fit."""
    task = Exact(text_task(tmp_path))
    with pytest.warns(UserWarning, match="frozen layers are computed each time: there is not enough memory"):
        found = run(Narrow(task, 200), **FROZEN)
    assert_close(weights(found.model), weights(run(task, **FROZEN).model))


@pytest.mark.usefixtures("no_cache")
def test_frozen_layers_that_one_rank_cannot_compute_are_one_message(tmp_path):
    first, second = outcomes(Narrow(text_task(tmp_path), 100, rank=0), **FROZEN)  # of so few texts it takes all
    assert first == "ConfigError: out of memory while the frozen layers were computed. Set speed.prefix_cache: off."
    assert second.startswith(f"{RankLostError.__name__}: ")


def test_a_cut_that_an_evaluation_halved_holds_at_once(tmp_path):
    """Exact, dropout on, from a step of the same phase: the part after the evaluation, and a resumed run alike."""
    settings = {"micro_batch": "4 examples", "evaluate_every": "5 steps", "log_every": "1 steps"}
    check(Tight(text_task(tmp_path), 8, evaluates=True), tmp_path, 7, **settings)


def test_an_evaluation_is_halved_too(tmp_path):
    task = text_task(tmp_path)
    settings = {"micro_batch": "4 examples", "evaluate_every": "5 steps"}
    found = run(Tight(Exact(task), 8, evaluates=True), output_dir=str(tmp_path / "run"), **settings)
    assert told(tmp_path / "run") == [(5, "4 examples", "2 examples")]
    assert found.metrics["validation"] == pytest.approx(run(Exact(task), **settings).metrics["validation"], rel=1e-8)


def test_other_faults_are_not_taken_for_it(tmp_path):
    class Broken(Tight):
        def forward(self, model, batch, progress):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(Broken(text_task(tmp_path), 0))
