"""Runs of 40 updates that are stopped after each, by the name of what may go wrong when they go on."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from finetune.checkpoints.reading import read_checkpoint, step_name
from finetune.curricula import Curriculum
from finetune.optimizers import AdamW
from finetune.policies import Checkpointing, EarlyStopping
from finetune.precision import Precision
from finetune.schedules import ReduceOnPlateau
from finetune.strategies import GradualUnfreeze
from finetune.training import FitResult
from tests.integration.test_resume import finished
from tests.runs import STRATEGIES, digest, history, image_task, run, text_task, weights

STEPS = 40
# Neither divides the other, nor a phase or an epoch (4 updates of the texts, 3 of the images).
_SETTINGS = {"length": f"{STEPS} steps", "evaluate_every": "7 steps", "log_every": "3 steps"}
_LAST = Checkpointing(every=f"{STEPS} steps", keep_last=1)


class Row(NamedTuple):
    """A run, and what shows that it is the one it is named for."""

    task: Callable[[Path], Any]
    settings: Mapping[str, Any] = {}
    shows: Callable[[FitResult], bool] = lambda result: result.state.step == STEPS


def dropping_images(folder: Path, **options: Any) -> Any:
    """The image task on a ViT with dropout, which has none by itself."""
    task = image_task(folder, **options)
    path = Path(task.model) / "config.json"
    rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    path.write_text(json.dumps(json.loads(path.read_text()) | rates))
    return task


def rates(result: FitResult) -> dict[int, Mapping[str, float]]:
    """The learning rates in the log, by step."""
    return {line["step"]: line["lr"] for line in history(result.folder) if "lr" in line}


_UNFREEZE_ON_PLATEAU = GradualUnfreeze(patience=1, over="80%")
_RAGGED = {"micro_batch": "3 examples"}
_AUGMENTED = partial(dropping_images, augment="light")
_FP16 = Precision(name="fp16", emulate="yes", initial_scale=2.0**24, interval=2, max=2.0**24)
ROWS = {
    **{f"bert-{name}": Row(text_task, {"strategy": strategy}) for name, strategy in STRATEGIES.items()},
    **{f"vit-{name}": Row(dropping_images, {"strategy": strategy}) for name, strategy in STRATEGIES.items()},
    "curriculum-length": Row(text_task, {"curriculum": Curriculum(difficulty="length", start=0.4, until="80%")}),
    "curriculum-loss": Row(dropping_images, {"curriculum": Curriculum(difficulty="loss", start=0.4, until="80%")}),
    "augmented": Row(_AUGMENTED),
    "augmented-2-workers": Row(_AUGMENTED, {"workers": 2}),
    "bf16": Row(text_task, {"precision": Precision(name="bf16", emulate="yes")}),
    "fp16-skips": Row(
        text_task,
        {"precision": _FP16, "optimizer": AdamW(lr=1e-4)},
        lambda result: result.state.scaler.skipped > 1,
    ),
    "3-ragged-cuts": Row(
        text_task, _RAGGED, lambda result: result.plan["micro_batches_per_step"] == {"min": 1, "max": 3}
    ),
    "3-ragged-cuts-bucketed-unfreeze": Row(
        text_task, {**_RAGGED, "order": "bucketed", "strategy": STRATEGIES["gradual_unfreeze"]}
    ),
    "early-stopping-best-2": Row(
        text_task,
        {
            "optimizer": AdamW(lr=3e-2),
            "early_stopping": EarlyStopping(patience=4),
            "evaluate_every": "3 steps",
            "checkpoint": Checkpointing(every="3 steps", keep_last=1, keep_best=2),
        },
        lambda result: result.state.stopped_early and result.state.step < STEPS,
    ),
    "plateau": Row(
        text_task,
        {"schedule": ReduceOnPlateau(patience=0, factor=0.5), "evaluate_every": "4 steps"},
        lambda result: len({each["head"] for each in rates(result).values()}) > 3,
    ),
    "unfreeze-on-plateau": Row(
        text_task,
        {"strategy": _UNFREEZE_ON_PLATEAU, "evaluate_every": "4 steps"},
        lambda result: "layer.1" in rates(result)[9],  # which begins at 11 if no plateau comes
    ),
}


def returned(result: FitResult) -> tuple:
    """What a run gave back, bit for bit: the best weights, and what they score."""
    return digest(weights(result.model)), result.metrics, result.best


def left(folder: Path) -> tuple:
    """What a run left, bit for bit: its last checkpoint, and its log. Not before every rank has ended."""
    return finished(folder), history(folder)


class Whole(NamedTuple):
    """An undisturbed run that saved each step, and its settings without that."""

    task: Any
    settings: dict[str, Any]
    folder: Path

    def after(self, step: int, folder: Path) -> Path:
        """The folder of this run as a kill after the save of a step leaves it: some lines are in the log too many."""
        folder.mkdir()
        for name in (".run.json", "config.yaml", "plan.json", "environment.json"):
            shutil.copy(self.folder / name, folder)
        saved = self.folder / "checkpoints"
        for number in range(1, step + 1):
            shutil.copytree(
                saved / step_name(number), folder / "checkpoints" / step_name(number), copy_function=os.link
            )
        offset = read_checkpoint(saved / step_name(step)).documents["progress"]["log_offset"] if step else 0
        lines = (self.folder / "log.jsonl").read_bytes()
        later = lines[offset:].splitlines(keepends=True)[:-1]  # without the last, how the run ended
        (folder / "log.jsonl").write_bytes(lines[:offset] + b"".join(later)[: 600 + step])
        return folder

    def resumed(self, folder: Path) -> FitResult:
        """The rest of the run that is in a folder; a word of it being elsewhere is a fault."""
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*was made elsewhere")
            return run(self.task, output_dir=str(folder), existing="resume", **self.settings)


def kept(folder: Path) -> set[int]:
    """The steps of the checkpoints that are left."""
    return {int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*")}


def best(result: FitResult, count: int) -> list[int]:
    """The steps of the highest scores; of equal ones the earlier."""
    return [step for step, _ in sorted(result.state.evaluations, key=lambda each: (-each.score, each.step))[:count]]


def whole(row: Row, folder: Path) -> tuple[Whole, FitResult]:
    """Run it to its end, and save each step."""
    task, settings = row.task(folder), {"checkpoint": _LAST, **_SETTINGS, **row.settings}
    every = dataclasses.replace(settings["checkpoint"], every="1 steps", keep_last=2 * STEPS)
    result = run(task, output_dir=str(folder / "whole"), **{**settings, "checkpoint": every})
    return Whole(task, settings, folder / "whole"), result
