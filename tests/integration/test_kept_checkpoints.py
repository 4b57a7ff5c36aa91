"""What a run keeps of its checkpoints is what its configuration says, resumed or not."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from finetune.errors import ConfigError, PreemptedError
from finetune.policies import Checkpointing
from finetune.training import plan_run
from tests.runs import config, run, text_task

# Ten steps, four an epoch, one save a step.
EVERY_STEP = {"every": "1 steps", "keep_last": 1, "keep_best": 0}
KEPT = {
    "nothing more": ({}, {10}),
    "each fourth": ({"keep_every": "4 steps"}, {4, 8, 10}),
    "each epoch": ({"keep_every": "1 epoch"}, {4, 8, 10}),
    "by age": ({"keep_spaced": "yes"}, {4, 8, 9, 10}),
    "all of it": ({"keep_every": "50%", "keep_spaced": "yes", "keep_last": 3}, {4, 5, 8, 9, 10}),
    "a rarer mark than there are saves": ({"every": "3 steps", "keep_every": "4 steps"}, {6, 9, 10}),
}


def kept(folder: Path) -> set[int]:
    return {int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*")}


@pytest.mark.parametrize("rule", KEPT)
def test_what_stays(tmp_path, rule):
    changes, expected = KEPT[rule]
    settings = {"checkpoint": Checkpointing(**{**EVERY_STEP, **changes}), "evaluate_every": "100%"}
    run(text_task(tmp_path), output_dir=str(tmp_path / "whole"), **settings)
    assert kept(tmp_path / "whole") == expected
    with pytest.raises(PreemptedError):
        run(text_task(tmp_path), output_dir=str(tmp_path / "cut"), stop_at=7, **settings)
    run(text_task(tmp_path), output_dir=str(tmp_path / "cut"), existing="resume", **settings)
    assert kept(tmp_path / "cut") == expected


def test_a_stretch_that_never_ends_is_told(tmp_path):
    longer = config(text_task(tmp_path), checkpoint=Checkpointing(keep_every="11 steps"))
    assert any("keep_every: 11 steps: without effect" in text for text in plan_run(longer)["warnings"])
    just = config(text_task(tmp_path), checkpoint=Checkpointing(keep_every="10 steps"))
    assert not any("keep_every" in text for text in plan_run(just)["warnings"])


def test_what_is_no_rule_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep_every: .* is no interval"):
        Checkpointing(keep_every="0 steps")
    with warnings.catch_warnings(), pytest.raises(ConfigError, match="keep_spaced"):
        warnings.simplefilter("error")
        run(text_task(tmp_path), checkpoint=Checkpointing(keep_spaced="maybe"))
