"""An average as a run folder: weights between those of two others, scored and saved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from ..averaging import interpolate
from ..checkpoints.run_folder import RunFolder, open_run_folder
from ..choices import listed
from ..errors import ConfigError
from ..hub.reload import logits_of, read_probe
from ..model_cards.probe import PROBE, write_probe
from ..models.from_transformers import quiet
from ..randomness import preserved
from ..run_config import RunConfig
from .spec import Average, Stage, ends_of, folder_of


def check_alike(start: Path, end: Path) -> None:
    """Refuse to average models whose weights do not belong to one another.

    Args:
        start: A run's ``model/``.
        end: Another's.

    Raises:
        ConfigError: An adapter, or weights that one of them lacks or has in another shape.
    """
    if any((folder / "adapter_config.json").is_file() for folder in (start, end)):
        raise ConfigError("average: one of the two models is an adapter; average models that were trained in full")
    shapes = [_shapes(folder) for folder in (start, end)]
    apart = sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()})
    if apart:
        raise ConfigError(
            f"average: the two models are not alike, as {listed(apart, most=3)} are in one of them only, or of "
            "another shape. Name two stages of one task, of which the second starts from the first."
        )


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            found |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return found


def average(stages: Sequence[Stage], number: int, *, root: Path, resumes: bool) -> dict[str, dict[str, float]]:
    """Make the run folder of an average on rank 0, and score it on all ranks.

    Args:
        stages: The series.
        number: Of the average, from 0.
        root: Of the series.
        resumes: Take a folder that was begun.

    Returns:
        Metrics by split.
    """
    from ..training import score_model

    start, end = (folder_of(stages, at, output_dir=root) for at in ends_of(stages, number))
    run, config = stages[number].run, trained_config(stages, number)
    assert isinstance(run, Average)
    alpha, opened = run.alpha, list[RunFolder]()
    model = folder_of(stages, number, output_dir=root) / "model"
    scores: dict[str, dict[str, float]] = {}

    def begin() -> None:
        opened.append(open_run_folder(model.parent, resume=resumes))
        opened[0].write_document("config.yaml", (end / "config.yaml").read_text(encoding="utf-8"))
        shutil.rmtree(model, ignore_errors=True)  # of an average that was cut before it was scored
        interpolate(start, end, alpha, output=model, code="run")  # what the configuration of the series named

    def finish() -> None:
        metric = json.loads((end / "metrics.json").read_text(encoding="utf-8"))["best"]["metric"]
        _write_probe(model, end)
        best = {"step": 0, "metric": metric, **scores["validation"]}
        opened[0].write_document("metrics.json", {"final": scores, "best": best, "training_seconds": 0.0})
        opened[0].log.append({"ended": "finished", "exit_code": 0})

    try:
        on_first(config, begin)
        for split in ("validation", "test"):
            if split in config.task.splits():
                scores[split] = score_model(config, model, split=split)
        on_first(config, finish)
    finally:
        for folder in opened:
            folder.close()
    return scores


def _write_probe(model: Path, end: Path) -> None:
    """What the average gives for the inputs that the end was probed with."""
    inputs, expected, facts = read_probe(end / PROBE)
    with quiet():
        logits = logits_of(model, inputs, facts, classes=expected.shape[-1])
    is_timm = facts["library"] == "timm"
    library: Literal["transformers", "timm"] = "timm" if is_timm else "transformers"
    write_probe(model.parent, inputs=inputs, logits=logits, library=library, kind=facts.get("kind", ""))


def trained_config(stages: Sequence[Stage], number: int) -> RunConfig:
    """The run that trained what a stage ends in."""
    while isinstance(stages[number].run, Average):
        number = ends_of(stages, number)[1]
    run = stages[number].run
    assert isinstance(run, RunConfig)
    return run


def on_first(config: RunConfig, work: Callable[[], Any]) -> Any:
    """What ``work`` gives on rank 0, on every rank."""
    from ..training.placement import placed

    with preserved(), placed(config.precision) as placement:
        return placement.ranks.on_first(work)
