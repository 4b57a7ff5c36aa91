"""``finetune compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import ConfigError, DivergedError, InterruptedRunError
from .options import AsJson, Debug, Files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="GRID.yaml | RECIPE[:NAME]... [KEY=VALUE]...",
        help="A grid; or recipes (bert_text:lora) and YAML runs, the first being what the others are compared with. "
        "Values are laid over all of them.",
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Run several configurations with several seeds, and say what differs beyond noise.")(compare)


def compare(
    words: Words,
    config: Files = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="N", help="How many; or which: 1,2,3. 5 by default.")] = "",
    metric: Annotated[str, typer.Option("--metric", metavar="NAME", help="That decides; else the task's first.")] = "",
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="validation or test; else test if any.")] = "",
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", help="Runs at a time, each in its own process.")] = 1,
    keep_checkpoints: Annotated[  # noqa: FBT002
        bool, typer.Option("--keep-checkpoints", help="Also of runs that have finished; else only model/ stays.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on; cells and seeds may be added.")] = False,  # noqa: FBT002
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Move an old output_dir aside first.")] = False,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002
    debug: Debug = False,  # noqa: FBT002
) -> int:
    """Runs them, and prints the tables."""
    import json

    from ..checkpoints.documents import to_json
    from ..comparing import compare as compared
    from ..comparing.grid import read_grid
    from ..forking.children import FORKS

    if resume and overwrite:
        raise ConfigError("--resume goes on with the old comparison and --overwrite moves it aside. Give one of them.")
    if jobs < 1:
        raise ConfigError(f"--jobs {jobs}: expected at least 1.")
    existing: Literal["refuse", "resume", "overwrite"] = "resume" if resume else "overwrite" if overwrite else "refuse"
    recipes = [word for word in words if "=" not in word]
    if not recipes:
        raise ConfigError("nothing to compare. Give a grid, or two recipes: bert_text:full bert_text:lora.")
    grid = read_grid(recipes, files=config or (), overrides=[word for word in words if "=" in word], seeds=seeds)
    try:
        found = compared(
            grid.cells,
            seeds=grid.seeds,
            output_dir=grid.output_dir,
            metric=metric or grid.metric,
            split=split or grid.split,  # type: ignore[arg-type]  # a wrong word is refused
            jobs=jobs if FORKS else 0,
            existing=existing,
            keep="checkpoints" if keep_checkpoints else "model",
        )
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted: what has run, and the checkpoints of what was cut, are in {grid.output_dir}; "
            "go on with --resume"
        ) from None
    if as_json:
        print(json.dumps(json.loads(to_json(found.document)), indent=2))
    else:
        _print(found.document)
        print(f"report: {found.folder / 'compare.html'}   numbers: {found.folder / 'compare.json'}")
    return _exit_code(found.document)


def _print(document: Mapping[str, Any]) -> None:
    from ..comparing.report import tables
    from .tables import print_table

    for table in tables(document):
        print(table.title)
        print_table(table.columns, table.rows, right=range(1, len(table.columns)))
    for line in document["summary"]["said"]:
        print(line)
    print()


def _exit_code(document: Mapping[str, Any]) -> int:
    """That of the first run that failed for another reason than that it diverged, which is a result."""
    seeds = {str(seed) for seed in document["seeds"]}
    found = [document["cells"][name]["runs"] for name in document["compared"]]
    runs = [run for by_seed in found for seed, run in by_seed.items() if seed in seeds]
    codes = [run["exit_code"] for run in runs if run["ended"] != "finished"]
    return next((code for code in codes if code != DivergedError.exit_code), 0)
