"""Averages of the weights of finished runs: WiSE-FT between a start and an end, and soups of several runs."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .choices import listed
from .errors import ConfigError, ModelError, RunFolderError

if TYPE_CHECKING:
    from torch import Tensor

    from .config.foreign import Code
    from .models.loaded import LoadedModel
    from .run_config import RunConfig

_README = (
    "# {title}\n\n{what}.\n\nThe files are as {library} writes them; `averaging.json` says the same for programs.\n"
)


class Soup(NamedTuple):
    """What an average of runs came to."""

    folder: Path  # a model folder
    runs: tuple[Path, ...]  # whose weights are in it
    scores: dict[str, float]  # of the validation split; empty where nothing was asked


def interpolate(
    start: str | Path | None, end: str | Path, alpha: float = 0.5, *, output: str | Path, code: Code = "refuse"
) -> Path:
    """Weights between two: ``(1 - alpha) start + alpha end`` (WiSE-FT: Wortsman et al. 2022, arXiv 2109.01903, 3).

    Args:
        start: A run folder; None: the checkpoint that the run ``end`` began from. What that lacks, such as a new head,
            is as it is in ``end``.
        end: The folder of a finished run.
        alpha: 0 is the start, 1 the end; the paper recommends 0.5.
        output: Of a model folder that does not exist yet; it opens as any ``model/`` does.
        code: What to do with Python files that the ``config.yaml`` of ``end`` names, other than recipes of ours.

    Raises:
        ConfigError: ``alpha`` is no share.
        RunFolderError: A run is not finished, or the output exists.
        ModelError: The two are not of one architecture, or adapters.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha: got {alpha}; expected a share from 0 (the start) to 1 (the end)")
    target = _checked_output(output)
    config = _config_of(end, code)
    last = _model_of(config, end)
    first = _start_of(config) if start is None else _model_of(config, start)
    kept = set(first.new)
    weights = interpolated(
        {name: tensor for name, tensor in first.module.state_dict().items() if name not in kept},
        last.module.state_dict(),
        alpha=alpha,
        kept=kept,
    )
    origin = "its checkpoint" if start is None else Path(start).name
    what = f"Weights interpolated (WiSE-FT): {1 - alpha:g} of {origin} and {alpha:g} of the run {Path(end).name}"
    facts = {"kind": "interpolation", "alpha": alpha, "start": start and Path(start).name, "end": Path(end).name}
    _write(target, config, last, weights, what=what, facts=facts)
    return target


def uniform_soup(runs: Sequence[str | Path], *, output: str | Path, code: Code = "refuse") -> Soup:
    """The mean of the weights of several runs of one architecture (Wortsman et al. 2022, arXiv 2203.05482, recipe 1).

    Args:
        runs: Folders of finished runs.
        output: Of a model folder that does not exist yet.
        code: As for ``interpolate``, of the run that says how to load and score.

    Raises:
        ConfigError: Fewer than two runs.
        RunFolderError: A run is not finished, or the output exists.
        ModelError: They are not of one architecture, or adapters.
    """
    folders, target = _checked_runs(runs), _checked_output(output)
    config = _config_of(folders[0], code)
    _soup(config, folders, target)
    return Soup(target, folders, {})


def greedy_soup(runs: Sequence[str | Path], *, output: str | Path, code: Code = "refuse") -> Soup:
    """A mean that takes in a run only where that does not lower the validation metric (as above, recipe 2).

    Runs are tried from the best to the worst by their own metric; every mean is scored on the validation split of
    the best run.

    Args:
        runs: Folders of finished runs, all with one metric.
        output: Of a model folder that does not exist yet.
        code: As for ``interpolate``, of the run that says how to load and score.

    Raises:
        ConfigError: Fewer than two runs, or other metrics.
        RunFolderError: A run is not finished, or the output exists.
        ModelError: They are not of one architecture, or adapters.
    """
    from .training import score_model

    folders, target = _checked_runs(runs), _checked_output(output)
    metric, sign, ranked = _ranked(folders)
    config = _config_of(ranked[0], code)
    chosen: tuple[Path, ...] = ()
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".soup-") as aside:
        kept = None
        for number, run in enumerate(ranked):
            candidate = Path(aside) / str(number)
            _soup(config, (*chosen, run), candidate)
            scores = score_model(config, candidate, split="validation")
            if not chosen or sign * scores[metric] >= sign * best[metric]:
                chosen, best, kept = (*chosen, run), scores, candidate
        assert kept is not None
        os.replace(kept, target)
    return Soup(target, chosen, best)


def interpolated(
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    *,
    alpha: float,
    kept: set[str] | frozenset[str] = frozenset(),
) -> dict[str, Tensor]:
    """``(1 - alpha) start + alpha end`` of every tensor of ``end``; whole numbers and ``kept`` names are the end's.

    Raises:
        ModelError: Names or shapes differ.
    """
    import torch

    _check_same(start, {name: tensor for name, tensor in end.items() if name not in kept})
    return {
        name: torch.lerp(start[name], tensor, alpha) if name not in kept and tensor.is_floating_point() else tensor
        for name, tensor in end.items()
    }


def mean(models: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every tensor, summed in float64; whole numbers are the first model's.

    Raises:
        ModelError: Names or shapes differ.
    """
    first = models[0]
    for other in models[1:]:
        _check_same(other, first)
    return {
        name: (sum(model[name].double() for model in models) / len(models)).to(tensor.dtype)  # type: ignore[union-attr]
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.items()
    }


def _check_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    apart = sorted(one.keys() ^ other.keys())
    shapes = [name for name in other if name in one and one[name].shape != other[name].shape]
    if apart or shapes:
        raise ModelError(
            f"weights are averaged within one architecture, and these differ in {listed(apart + shapes, most=3)}"
        )


def _soup(config: RunConfig, runs: Sequence[Path], target: Path) -> None:
    models = [_model_of(config, run) for run in runs]
    names = [run.name for run in runs]
    what = f"The mean of the weights of {len(runs)} run{'s' if len(runs) > 1 else ''}: {', '.join(names)}"
    weights = mean([loaded.module.state_dict() for loaded in models])
    _write(target, config, models[0], weights, what=what, facts={"kind": "soup", "runs": names})


def _ranked(runs: Sequence[Path]) -> tuple[str, int, list[Path]]:
    """The metric of all runs, its sign, and the runs from the best to the worst."""
    from .metrics import direction

    found = [json.loads((run / "metrics.json").read_text("utf-8"))["best"] for run in runs]
    names = sorted({str(best["metric"]) for best in found})
    if len(names) > 1:
        raise ConfigError(f"runs: they were chosen by different metrics ({listed(names)}); take runs with one")
    metric = names[0]
    sign = -1 if metric == "loss" or direction(metric) == "minimize" else 1
    order = sorted(range(len(runs)), key=lambda at: (-sign * float(found[at][metric]), at))
    return metric, sign, [runs[at] for at in order]


def _config_of(run: str | Path, code: Code) -> RunConfig:
    from .config.foreign import resolve_run

    return resolve_run(_finished(run), code=code)


def _finished(run: str | Path) -> Path:
    folder = Path(run)
    for name in ("config.yaml", "metrics.json", "model"):
        if not (folder / name).exists():
            raise RunFolderError(
                f"{folder} is no finished run: it has no {name}. Give the output_dir of a finished run."
            )
    return folder


def _model_of(config: RunConfig, run: str | Path) -> LoadedModel:
    """What a run saved, as the task of ``config`` loads it.

    Raises:
        ModelError: An adapter, or a model for other classes.
    """
    from .models.contained import saved_model
    from .tasks.wrapping import replaced

    folder = _finished(run) / "model"
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} holds an adapter, and a mean of its factors is no mean of what they do. Merge it into its base "
            "(merge_and_unload of PEFT), or average runs without adapters."
        )
    task: Any = replaced(config.task, model=saved_model(folder), weights="pretrained")
    loaded: LoadedModel = task.load_model()
    if loaded.new:
        raise ModelError(f"{folder} has other classes than {listed(loaded.new, most=2)} of the run beside it need")
    return loaded


def _start_of(config: RunConfig) -> LoadedModel:
    """The checkpoint that a run began from.

    Raises:
        ConfigError: It began from none.
    """
    from .randomness import keyed

    if getattr(config.task, "weights", "") == "scratch":
        raise ConfigError("start: the run began from random weights (task.weights: scratch); name a run to start from")
    with keyed(config.seed, "init"):
        return config.task.load_model()


def _checked_runs(runs: Sequence[str | Path]) -> tuple[Path, ...]:
    if isinstance(runs, str | Path) or len(runs) < 2:
        raise ConfigError("runs: a soup is of at least two finished runs; give their folders")
    return tuple(_finished(run) for run in runs)


def _checked_output(output: str | Path) -> Path:
    folder = Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(f"{folder} exists and is not empty; choose another output")
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder


def _write(
    target: Path,
    config: RunConfig,
    loaded: LoadedModel,
    weights: Mapping[str, Tensor],
    *,
    what: str,
    facts: Mapping[str, Any],
) -> None:
    """A model folder, written aside and renamed."""
    from .models.saving import save_model

    labels = getattr(config.task, "id2label", None) or {0: "LABEL_0"}
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".average-") as aside:
        folder = Path(aside) / "model"
        loaded.module.load_state_dict(dict(weights))
        save_model(folder, loaded, loaded.module, id2label=labels)
        (folder / "averaging.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        text = _README.format(
            title=target.parent.name if target.name == "model" else target.name, what=what, library=loaded.library
        )
        (folder / "README.md").write_text(text, encoding="utf-8")
        os.replace(folder, target)
