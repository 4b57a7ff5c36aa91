"""Memory that runs out in an update: on every rank the same update again, in smaller parts, with the same result."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from finetune.errors import ConfigError, FinetuneError, RankLostError
from finetune.models.loaded import LoadedModel
from finetune.optimizers import SGD
from finetune.strategies import GradualUnfreeze
from finetune.tasks.data_map import DataMap
from finetune.training import loop
from tests.distributed.two_ranks import on_ranks
from tests.integration.test_resume import check
from tests.poisoned import LACKING, Tight
from tests.runs import Exact, assert_close, digest, history, run, text_task, weights, without_dropout


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


def outcomes(task, **settings) -> tuple[str, str]:
    def work():
        try:
            run(task, length="3 steps", **settings)
        except FinetuneError as error:
            return f"{type(error).__name__}: {error}"

    first, second = on_ranks(work, **({"sharded": True} if settings.pop("sharded", False) else {}))
    return first, second


def test_one_example_that_does_not_fit_ends_the_run_on_every_rank(tmp_path):
    first, second = outcomes(Tight(text_task(tmp_path), 0, rank=1, since=1), micro_batch="2 examples")
    assert first == second
    assert first.startswith("ConfigError: out of memory at update 1, with one example in each forward: lower task.max")


def test_nothing_left_at_all_is_told_too(tmp_path):
    with pytest.raises(ConfigError, match="out of memory after step 1 with micro_batch: 32 examples; .*or lower task"):
        run(Tight(text_task(tmp_path), -1, since=1))


@pytest.mark.parametrize("how", ["sharded", "backward"])
def test_what_cannot_be_tried_again_is_one_message(tmp_path, how):
    """On the rank that lacks memory; the other loses it, and does not hang."""
    task = text_task(tmp_path)
    if how == "sharded":
        first, second = outcomes(Tight(task, 1, rank=1, since=1), micro_batch="4 examples", sharded=True)
    else:
        first, second = outcomes(Tight(task, 1, rank=1, since=1, when="backward"), micro_batch="4 examples")
    assert first.startswith(f"{RankLostError.__name__}: ")
    assert second.startswith("ConfigError: out of memory after step 1 with micro_batch: 4 examples; it cannot be ")
    assert "Write micro_batch: 2 examples, or lower task.max_length" in second


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
