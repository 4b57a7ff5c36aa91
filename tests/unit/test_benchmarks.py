"""What the benchmarks count, draw and conclude; nothing is timed."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from benchmarks import ours, report, shapes, workloads
from benchmarks.clock import Clock
from benchmarks.definition import OURS, Row, Target, Work
from benchmarks.gates import STEPS, gate
from benchmarks.peers import torch_loop
from benchmarks.results import Results, judged
from benchmarks.rounds import Rounds, key_of
from benchmarks.rows import ROWS, row_named

SMOKE = row_named("smoke")
TINY = Work(shape="bert-nano", batch_size=4, warmup_steps=1, timed_steps=2, validation=4)


def rounds_of(path, row: Row, **values: list[float]) -> Rounds:
    """Rounds in which each contender had these values, the first of them in the round that warms up."""
    rounds = Rounds(path)
    for name, found in values.items():
        for number, value in enumerate(found):
            result = {row.value: value, "memory": 1.0}
            rounds.add(row=row.name, key=key_of(row), contender=name, round=number, result=result)
    return rounds


def compared(**target) -> Row:
    return dataclasses.replace(SMOKE, targets=(Target(against="Trainer, default", **target),), gate=False)


@pytest.mark.parametrize(
    ("kind", "must", "aim", "ours_s", "theirs_s", "measured", "verdict"),
    [
        ("times", 2.0, 3.0, 1.0, 2.5, 2.5, "reached"),
        ("times", 2.0, 3.0, 1.0, 3.5, 3.5, "reached, and the aim"),
        ("times", 2.0, 3.0, 1.0, 1.5, 1.5, "**missed**"),
        ("share", 0.7, 0.5, 6.0, 10.0, 0.6, "reached"),
        ("share", 0.7, 0.5, 8.0, 10.0, 0.8, "**missed**"),
        ("most", 5.0, None, 6.0, 1.0, 6.0, "**missed**"),
        ("least", 5.0, None, 6.0, 1.0, 6.0, "reached"),
    ],
)
def test_a_verdict_says_what_was_measured(tmp_path, kind, must, aim, ours_s, theirs_s, measured, verdict):
    row = compared(kind=kind, must=must, aim=aim)
    values = {OURS: [99.0, ours_s], "Trainer, default": [99.0, theirs_s]}
    found = judged(Results.of(row, rounds_of(tmp_path / "rounds", row, **values)), row.targets[0])
    assert found.measured == pytest.approx(measured) and found.verdict == verdict


def test_the_round_that_warms_up_and_those_that_failed_do_not_count(tmp_path):
    rounds = rounds_of(tmp_path / "rounds", SMOKE, **{OURS: [100.0, 1.0, 2.0, 4.0]})
    rounds.add(row="smoke", key=key_of(SMOKE), contender=OURS, round=4, result={"error": "out of memory"})
    assert Results.of(SMOKE, Rounds(tmp_path / "rounds")).values(OURS) == [1.0, 2.0, 4.0]


def test_rounds_of_another_work_are_not_taken(tmp_path):
    rounds = rounds_of(tmp_path / "rounds", SMOKE, **{OURS: [1.0, 1.0]})
    other = dataclasses.replace(SMOKE, work=dataclasses.replace(SMOKE.work, batch_size=5))
    assert Results.of(SMOKE, rounds).records and not Results.of(other, rounds).records


def test_a_torn_line_of_a_killed_run_is_left_out_and_written_over(tmp_path):
    path = tmp_path / "rounds"
    rounds_of(path, SMOKE, **{OURS: [1.0, 2.0]})
    path.write_text(path.read_text() + '{"row": "smoke", "ke')
    Rounds(path).add(row="smoke", key=key_of(SMOKE), contender=OURS, round=2, result={"seconds": 3.0})
    assert [record["round"] for record in Rounds(path).records] == [0, 1, 2]


def test_every_row_is_well_formed():
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        source = row_named(row.takes_from) if row.takes_from else row
        names = [contender.name for contender in source.contenders]
        assert names[0] == OURS and len(set(names)) == len(names)
        assert row.targets and all(target.against in names for target in row.targets)
        assert row.work == source.work


def test_the_report_says_what_was_missed_and_what_is_equal_and_names_no_path(tmp_path):
    rounds = rounds_of(tmp_path / "rounds", SMOKE, **{OURS: [1.0, 1.0], "Trainer, default": [1.0, 0.0001]})
    passed = {"fast_plain": 1e-9, "fast_loop": 3e-7, "steps": STEPS, "passed": True}
    rounds.add(row="smoke", key=key_of(SMOKE), gate=passed)
    report.write(tmp_path / "RESULTS.md", rounds)
    text = (tmp_path / "RESULTS.md").read_text()
    line = next(line for line in text.splitlines() if "#smoke" in line)
    assert "**missed**" in line and "equal (3e-07)" in line
    assert "/" + str(tmp_path).split("/")[1] + "/" not in text
    assert all(row.title in text for row in ROWS if row.default)


def test_texts_have_exactly_the_lengths_that_were_drawn(tmp_path):
    from transformers import AutoTokenizer

    data = workloads.workload(dataclasses.replace(TINY, timed_steps=20, max_length=512), tmp_path)
    rows = data.train.read_text().splitlines()[1:]
    words = AutoTokenizer.from_pretrained(data.model)
    found = [len(words(row.rpartition(",")[0])["input_ids"]) for row in rows]
    assert found == data.lengths.tolist() and len(set(found)) > 5
    assert words.unk_token_id not in words(rows[0].rpartition(",")[0])["input_ids"]


def test_lengths_are_drawn_from_the_histogram():
    histogram = json.loads(workloads._LENGTHS.read_text())["sets"]["sst2"]
    drawn = workloads.drawn_lengths("sst2", 50_000, rng=np.random.default_rng(0))
    assert abs(drawn.mean() - histogram["mean"]) < 0.15
    assert drawn.min() >= 3 and str(int(drawn.max())) in histogram["histogram"]


def test_the_arithmetic_of_a_forward_is_what_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import BertConfig, BertModel

    shape = shapes.SHAPES["bert-nano"]
    config = BertConfig(
        vocab_size=50,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
        attn_implementation="eager",
    )
    model = BertModel(config, add_pooling_layer=False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(2, 7, dtype=torch.int64))
    assert counter.get_total_flops() == shape.forward_flops([7, 7])


def test_a_window_opens_and_closes_where_updates_begin():
    clock = Clock(first=1, last=3)
    for step in (0, 0, 1, 1, 2, 3, 4):  # a trial forward looks like update 0; two forwards may be one update
        clock.tick(step)
    assert clock.window() == pytest.approx(sum(clock.gaps())) and len(clock.gaps()) == 2
    assert clock.window() == clock.ticks[3] - clock.ticks[1]


def test_stages_train_the_head_and_blocks_from_the_top():
    names = ["embeddings", "layer.0", "layer.1", "layer.2", "head"]
    assert ours.trained(names, 0) == ["head"]
    assert ours.trained(names, 2) == ["layer.1", "layer.2", "head"]
    assert ours.trained(names, 3) == names


def test_every_example_is_drawn_once_an_epoch():
    work = dataclasses.replace(TINY, timed_steps=0, examples=10, epochs=2)
    drawn = ours.drawn(work)
    assert [len(update) for update in drawn] == [4, 4, 2] * 2
    assert sorted(index for update in drawn[:3] for index in update) == list(range(10))


def test_the_gate_passes_for_what_is_frozen_too(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    found = gate(dataclasses.replace(SMOKE, work=dataclasses.replace(TINY, stages=(0,))), tmp_path)
    assert found["passed"] and 0 < found["features"] < 1e-5, found


def test_the_gate_fails_where_the_loop_computes_something_else(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch_loop, "LR", 1e-3)
    found = gate(dataclasses.replace(SMOKE, work=TINY), tmp_path)
    assert not found["passed"] and found["fast_plain"] < 1e-5 < found["fast_loop"]
