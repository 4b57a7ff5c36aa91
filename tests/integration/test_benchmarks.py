"""``python -m benchmarks`` from its command line to its report, on a tiny row; nothing is timed."""

from __future__ import annotations

import json

from benchmarks.__main__ import main
from benchmarks.gates import STEPS
from benchmarks.rounds import Rounds, key_of
from benchmarks.rows import row_named

NAMES = ["finetune", "Trainer, default"]


def test_a_row_that_was_interrupted_goes_on_where_it_stopped_and_is_reported(tmp_path):
    path, report = tmp_path / "rounds.jsonl", tmp_path / "RESULTS.md"
    row = row_named("smoke")
    rounds = Rounds(path)
    passed = {"fast_plain": 1e-9, "fast_loop": 2e-7, "steps": STEPS, "passed": True}
    rounds.add(row="smoke", key=key_of(row), gate=passed)
    for name in NAMES:
        rounds.add(row="smoke", key=key_of(row), contender=name, round=1, result={"seconds": 1.0})
    before = path.read_text()
    path.write_text(before + '{"row": "smo')  # killed while it wrote

    words = ["--quick", "--rows", "smoke", "--rounds", "2", "--json", str(path), "--output", str(report)]
    assert main([*words, "--root", str(tmp_path / "root")]) == 0

    assert path.read_text().startswith(before)
    added = [json.loads(line) for line in path.read_text().removeprefix(before).splitlines()[1:]]
    assert [(record["contender"], record["round"]) for record in added] == [(name, 2) for name in NAMES]
    for record in added:
        assert record["result"]["seconds"] > 0 and record["result"]["memory"] > 0, record
    text = report.read_text()
    assert "2 rounds" in text and "| reached | equal (2e-07) |" in text and str(tmp_path) not in text
