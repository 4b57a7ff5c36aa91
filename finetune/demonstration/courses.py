"""What the demonstration runs: two recipe files, their strategies, and a baseline without deep learning for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .. import running
from . import baselines

STRATEGIES = ("full", "freeze", "discriminative", "gradual_unfreeze", "lora")


class Course(NamedTuple):
    """One modality: a recipe file, which of its functions run, and what they are compared with."""

    name: str
    recipe: str
    functions: tuple[str, ...]
    baseline: Callable[[Any], baselines.Scored]  # of the recipe's task
    prepare: Callable[[], object]  # what all runs need, once, in the parent; a FinetuneError skips the course
    export_to_timm: Callable[[Path], Path] | None = None  # the same weights for timm, as one more run
    threads: int = 0  # of torch; 0: as many as there are cores


class Trained(NamedTuple):
    """What a row of the table says of a run or a baseline; numbers are those that were measured."""

    trained: int
    parameters: int | None
    accuracy: float
    examples: dict[str, int]
    classes: int
    folder: str | None = None
    training_seconds: float | None = None


def courses() -> tuple[Course, Course]:
    """Texts and images."""
    from ..models.glyph_vit import export_to_timm

    functions = ("scratch", *STRATEGIES)
    return (
        Course("text", "bert_text", functions, baselines.tfidf, _prepare_texts),
        # Its tensors are so small that a second thread costs more than it does.
        Course("images", "vit_images", functions, baselines.pixels, _prepare_images, export_to_timm, threads=1),
    )


def trained(course: Course, function: str, folder: Path, *, show: str, timm_source: Path | None = None) -> Trained:
    """Run a recipe's function as ``finetune train`` does, into ``folder``; its checkpoints are removed at the end.

    Args:
        course: Holds the recipe.
        function: Of the recipe file.
        folder: The run folder.
        show: As for ``fit``.
        timm_source: A timm folder to start from, in place of the recipe's model.
    """
    import shutil

    from ..training import fit

    # An improving evaluation saves too, and the checkpoints go in the end: 270 MB at each epoch would be for nothing.
    overrides = [f"output_dir={folder}", "checkpoint.keep_last=1", "checkpoint.every=100%"]
    if timm_source is not None:
        overrides.append(f"task.model=timm:{timm_source}")
    prepared = running.prepare(course.recipe, function=function, files=(), overrides=overrides)
    result = fit(**vars(prepared.config), show=show, config_text=prepared.yaml)  # type: ignore[arg-type]
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # a finished text run's take 270 MB
    split = "test" if "test" in result.metrics else "validation"
    task: Any = prepared.config.task
    return Trained(
        trained=result.plan["num_trained"],
        parameters=result.plan["num_parameters"],
        accuracy=result.metrics[split]["accuracy"],
        examples={name: len(task.load_split(name)) for name in ("train", split)},
        classes=len(task.id2label),
        folder=str(folder),
        training_seconds=result.state.seconds,
    )


def baseline(course: Course) -> Trained:
    """Fit the course's baseline on the data of its recipe."""
    prepared = running.prepare(course.recipe, function=course.functions[0], files=(), overrides=())
    found = course.baseline(prepared.config.task)
    return Trained(found.parameters, None, found.accuracy, found.examples, found.classes)


def _prepare_texts() -> None:
    from ..data.pydocs import few_shot
    from ..models.minilm import minilm_folder

    minilm_folder()  # checks 90 MB once, and says what to do without them
    few_shot()  # parses the standard library once


def _prepare_images() -> None:
    from ..data.digits import few_shot
    from ..models.glyph_vit import glyph_vit_folder

    glyph_vit_folder()
    few_shot()
