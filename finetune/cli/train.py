"""``finetune train``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import ConfigError
from .options import Debug, Files, Function, Overrides, RecipeName, Trust

if TYPE_CHECKING:
    from ..stages.running import StageResult
    from ..training import FitResult


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Train. `finetune plan` with the same words shows what it will do.")(train)


def train(
    recipe: RecipeName,
    overrides: Overrides = None,
    function: Function = None,
    config: Files = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in output_dir.")] = False,  # noqa: FBT002
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Move an old output_dir aside first.")] = False,  # noqa: FBT002
    trust_remote_code: Trust = False,  # noqa: FBT002
    debug: Debug = False,  # noqa: FBT002
) -> None:
    """Trains, and prints what came of it."""
    from .. import running
    from .reporting import rank
    from .streams import OutputLostError

    if resume and overwrite:
        raise ConfigError("--resume goes on with the old run and --overwrite moves it aside. Give one of them.")
    existing: Literal["refuse", "resume", "overwrite"] = "resume" if resume else "overwrite" if overwrite else "refuse"
    prepared = running.prepare(recipe, function=function, files=config or (), overrides=overrides or ())
    if trust_remote_code:
        prepared = running.trusting(prepared)
    if prepared.stages:
        results = running.train_stages(prepared, existing=existing)
    else:
        result = running.train(prepared, existing=existing)
    if rank() == 0:
        with contextlib.suppress(OutputLostError):  # it is all in the run folder
            _print_stages(results) if prepared.stages else _print_result(result)
            sys.stdout.flush()


def _print_result(result: FitResult) -> None:
    from ..wording import number
    from .tables import print_table

    splits = list(result.metrics)
    names = list(dict.fromkeys(name for scores in result.metrics.values() for name in scores))
    rows = [[name, *(number(result.metrics[split].get(name, float("nan"))) for split in splits)] for name in names]
    print_table(["metric", *splits], rows, right=range(1, len(splits) + 1))
    if result.folder is not None:
        print(f"run folder: {result.folder}   model: {result.folder / 'model'}")


def _print_stages(results: Sequence[StageResult]) -> None:
    from ..wording import number
    from .tables import print_table

    rows = [
        [result.name, split, "  ".join(f"{name} {number(value)}" for name, value in scores.items())]
        for result in results
        for split, scores in result.metrics.items()
    ]
    print_table(["stage", "split", "metrics"], rows)
    print(f"run folders: {', '.join(str(result.folder) for result in results)}")
