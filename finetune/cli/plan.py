"""``finetune plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from .options import AsJson, Debug, Files, Function, Overrides, RecipeName, Trust

if TYPE_CHECKING:
    from ..running import Prepared


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
        from ..pictures import check_plot_file

        check_plot_file(plot)
    if trust_remote_code:
        prepared = trusting(prepared)
    if prepared.stages:
        return _stages(prepared, as_json=as_json, plot=plot)
    described = describe_plan(prepared)
    if rank() != 0:
        return
    if as_json:
        print(json.dumps(described, indent=2))
    else:
        from .plan_tables import print_plan

        print_plan(described, title=prepared.title)
    if plot is not None:
        from .plan_plot import draw

        draw(described, plot, title=prepared.title)


def _stages(prepared: Prepared, *, as_json: bool, plot: Path | None) -> None:
    """The plan of every stage; the picture of each in a file of its own, with the number and name of the stage."""
    import json

    from ..running import describe_stages
    from .plan_plot import draw
    from .plan_tables import print_plan
    from .reporting import rank

    plans = describe_stages(prepared)
    if rank() != 0:
        return
    if as_json:
        rows = [{"name": plan.name, "folder": str(plan.folder), **plan.document} for plan in plans]
        print(json.dumps({"stages": rows}, indent=2))
    for number, plan in enumerate(plans, start=1):
        title = f"{prepared.title}, stage {number} of {len(plans)}: {plan.name}"
        average = plan.document.get("average")
        if average and not as_json:
            share = average["alpha"]
            print(f"{title}\n  weights    {1 - share:g} x {average['start']} + {share:g} x {average['end']}\n")
        elif not as_json:
            print_plan(plan.document, title=title)
            print()
        if plot is not None and not average:
            draw(plan.document, plot.with_stem(f"{plot.stem}-{number}-{plan.name}"), title=title)
