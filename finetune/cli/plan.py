"""``finetune plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .options import AsJson, Debug, Files, Function, Overrides, RecipeName, Trust


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Show what training will do, and train nothing.")(plan)


def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    function: Function = None,
    config: Files = None,
    as_json: AsJson = False,  # noqa: FBT002
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--plot", metavar="FILE", help="Draw it: learning rates, and what trains when (png, svg, pdf)."),
    ] = None,
    trust_remote_code: Trust = False,  # noqa: FBT002
    debug: Debug = False,  # noqa: FBT002
) -> None:
    """Prints or draws the plan."""
    import json

    from ..running import describe_plan, prepare, trusting
    from .reporting import rank

    prepared = prepare(recipe, function=function, files=config or (), overrides=overrides or ())
    if plot is not None:
        from .plan_plot import check_plot_file, draw

        check_plot_file(plot)
    if trust_remote_code:
        prepared = trusting(prepared)
    described = describe_plan(prepared)
    if rank() != 0:
        return
    if as_json:
        print(json.dumps(described, indent=2))
    else:
        from .plan_tables import print_plan

        print_plan(described, title=prepared.title)
    if plot is not None:
        draw(described, plot, title=prepared.title)
