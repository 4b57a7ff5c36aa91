"""``finetune tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..errors import InterruptedRunError, PreemptedError
from .options import AsJson, Debug, Files, Overrides

if TYPE_CHECKING:
    from ..tuning import Trial, TuneResult

_MOST_ROWS = 15


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Search for the best values. The same words again, anywhere, work on the same study.")(tune)


def tune(
    space: Annotated[Path, typer.Argument(metavar="SPACE.yaml", help="What to search over which recipe.")],
    overrides: Overrides = None,
    config: Files = None,
    sampler: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME", help="grid, random, tpe or gp; over that of the file."),
    ] = None,
    pruner: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME", help="none, median or hyperband."),
    ] = None,
    trials: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="N", help="Of the study, over all processes."),
    ] = None,
    timeout: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="TIME", help="Begin no trial after, e.g. '2 h'."),
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Run nothing; show what there is.")] = False,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002
    debug: Debug = False,  # noqa: FBT002
) -> None:
    """Runs trials, and prints what came of them."""
    from ..checkpoints.documents import to_json
    from ..tuning.running import search_with
    from ..tuning.space_file import read_space_file

    given = {"sampler": sampler, "pruner": pruner, "trials": trials, "timeout": timeout}
    found = read_space_file(space, files=config or (), overrides=overrides or (), given=given)
    try:
        result = search_with(
            found.base, found.dimensions, found.search, root=found.root, show="progress", runs=not report
        )
    except (KeyboardInterrupt, InterruptedRunError, PreemptedError) as error:
        # A run would say --resume, which a search neither has nor needs.
        kind = PreemptedError if isinstance(error, PreemptedError) else InterruptedRunError
        raise kind(f"interrupted: its trials are kept in {found.root}; the same command goes on with them") from None
    if as_json:
        print(to_json(result.document(), indent=2).decode(), end="")
    else:
        _print(result)


def _print(result: TuneResult) -> None:
    from ..tuning.results import ranked
    from ..wording import number
    from .tables import print_table

    best = result.best
    if not result.trials:
        print("no trial has begun")
        return
    paths = list(dict.fromkeys(path for trial in result.trials for path in trial.values))
    has_seeds = any(len(trial.scores) > 1 for trial in result.trials)
    rows = ranked(result.trials, result.direction)
    columns = ["trial", result.metric, *(["sd"] if has_seeds else []), "seconds", "trained", *paths, "ended"]
    cells = [
        [
            str(trial.number),
            number(trial.value),
            *([number(trial.spread)] if has_seeds else []),
            f"{trial.seconds:.0f}",
            f"{trial.num_trained:,}",
            *(_shown(trial, path) for path in paths),
            trial.ended,
        ]
        for trial in rows[:_MOST_ROWS]
    ]
    print_table(columns, cells, right=range(4 + has_seeds))
    if len(rows) > _MOST_ROWS:
        print(f"and {len(rows) - _MOST_ROWS} more, in {result.folder / 'results.json'}")
    if result.importances:
        shares = "  ".join(f"{name} {share:.0%}" for name, share in result.importances.items())
        print(f"what matters: {shares}")
    for warning in result.warnings:
        print(f"note: {warning}")
    if best is not None:
        print(
            f"best: trial {best.number}, {result.metric} {number(best.value)}   config: {result.folder / 'best.yaml'}"
        )
    print(f"pictures: {result.folder / 'history.svg'}")


def _shown(trial: Trial, path: str) -> str:
    value = trial.values.get(path, "")
    return f"{value:.3g}" if isinstance(value, float) else str(value)
