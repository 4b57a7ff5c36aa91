"""Whole runs that find answers: cut, spread, stopped, saved and opened by the plain library."""

from __future__ import annotations

import pytest
import torch

from finetune import LoRA
from finetune.curricula import Curriculum
from finetune.data.sampling import MicroBatch
from finetune.data.store import Draw
from finetune.encoders import Forward
from finetune.errors import PreemptedError
from finetune.evaluation import predict
from finetune.hub.reload_check import check_reload
from finetune.model_cards.card import PLACEHOLDER
from finetune.model_cards.probe import PROBE
from finetune.optimizers import SGD
from finetune.precision import Precision
from finetune.progress import Progress
from finetune.running import evaluate_folder
from finetune.speed import PLAIN
from finetune.strategies import Freeze
from finetune.training.placement import placed
from tests.distributed.two_ranks import on_ranks
from tests.runs import Exact, assert_close, digest, run, weights
from tests.runs import question_task as task

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # plain PEFT


def trained(made, micro_batch="8 examples"):
    """Plain SGD, so that a gradient K times too large gives weights that are wrong by as much."""
    result = run(made, optimizer=SGD(lr=0.5, momentum=0.0), max_grad_norm=0, length="5 steps", micro_batch=micro_batch)
    return weights(result.model)


def test_the_gradient_does_not_depend_on_how_an_update_is_cut(tmp_path):
    made = Exact(task(tmp_path))
    whole = trained(made)
    assert_close(trained(made, "3 examples"), whole)
    for rank in on_ranks(lambda: trained(made, "2 examples")):
        assert_close(rank, whole)


def test_two_ranks_score_as_one(tmp_path):
    made = task(tmp_path)

    def scores():
        return run(Exact(made), length="4 steps", evaluate_every="2 steps").metrics

    expected = scores()
    assert set(expected["validation"]) == {"loss", "answer_f1", "exact_match"}
    first, second = on_ranks(scores)
    assert first == second
    for split, values in expected.items():
        assert first[split] == pytest.approx(values)


def test_a_run_learns_and_goes_on_after_a_stop_bit_for_bit(tmp_path):
    made = task(tmp_path)
    settings = {"length": "60 steps", "evaluate_every": "30 steps"}
    whole = run(made, **settings, output_dir=str(tmp_path / "whole"))
    assert whole.metrics["validation"]["exact_match"] > 0.5
    with pytest.raises(PreemptedError):
        run(made, **settings, output_dir=str(tmp_path / "cut"), stop_at=13)
    resumed = run(made, **settings, output_dir=str(tmp_path / "cut"), existing="resume")
    assert digest(weights(resumed.model)) == digest(weights(whole.model))
    assert evaluate_folder(tmp_path / "whole", split="test") == pytest.approx(whole.metrics["test"], rel=1e-5)


def test_fast_ways_change_nothing(tmp_path):
    made = Exact(task(tmp_path))
    frozen = {"strategy": Freeze(trainable=("head", "layer.-1")), "max_grad_norm": 0}
    fast, plain = run(made, **frozen), run(made, **frozen, speed=PLAIN)
    assert fast.plan["speed"]["packed"] == "on"
    assert_close(weights(fast.model), weights(plain.model))


def test_losses_are_those_of_their_own_windows(tmp_path):
    """A difficulty by loss relies on it; batches of an evaluation go by length."""
    made = task(tmp_path)
    store, forward, start = made.load_split("train"), Forward(made.load_model().module.eval()), Progress(0, 1, 1)
    with placed(Precision()) as placement:
        settings = {"task": made, "progress": start, "placement": placement, "tokens": forward.tokens}
        _, losses = predict(forward, store, **settings, micro_batch=MicroBatch("2 examples"))
    for index in range(len(store)):
        batch = {**store.batch([Draw(0, 0, index)]), "weights": torch.ones(1)}
        with torch.no_grad():
            alone = made.forward(forward, batch, start).losses
        assert losses[index, 0] == pytest.approx(alone.item(), rel=1e-4)
    run(made, curriculum=Curriculum(difficulty="loss", until="50%", start=0.5), length="3 steps")


def test_a_saved_model_answers_in_the_plain_library(tmp_path, capsys):
    from transformers import AutoModelForQuestionAnswering

    made = task(tmp_path)
    result = run(made, length="6 steps", output_dir=str(tmp_path / "run"))
    folder = tmp_path / "run" / "model"
    saved = AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    assert saved.config.id2label == {0: "start", 1: "end"}
    ids = made.load_split("validation").batch([Draw(0, 0, 3)])["input_ids"][None]
    with torch.no_grad():
        for name in ("start_logits", "end_logits"):
            expected = getattr(result.model.eval()(input_ids=ids), name)
            torch.testing.assert_close(getattr(saved(input_ids=ids), name), expected)
    card = (folder / "README.md").read_text()
    assert "finds the answer to a question in a text." in card and "pipeline_tag: question-answering" in card
    code = card.split("```python\n")[1].split("```")[0]
    exec(compile(code.replace(PLACEHOLDER, str(folder)), "README", "exec"), {})
    assert capsys.readouterr().out


def test_adapters_take_it(tmp_path):
    made = task(tmp_path)
    result = run(made, strategy=LoRA(rank=2), length="3 steps", output_dir=str(tmp_path / "run"))
    check_reload(tmp_path / "run" / "model", tmp_path / "run" / PROBE)
    assert evaluate_folder(tmp_path / "run", split="test") == pytest.approx(result.metrics["test"], rel=1e-5)
