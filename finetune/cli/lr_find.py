"""``finetune lr-find``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..errors import ConfigError
from ..start_up import rarely_collected
from .options import AsJson, Debug, Files, Function, Overrides, RecipeName, Trust

if TYPE_CHECKING:
    from ..lr_finding.finding import Finding
    from ..lr_finding.sweep import Sweep

_OPTIONS = {"start": "from", "stop": "to", "warm_head": "warm-head", "warm_head_lr": "warm-head-lr"}


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(name="lr-find", help="Suggest optimizer.lr by a sweep over the plan's rates; no run is made.")(lr_find)


def lr_find(
    recipe: RecipeName,
    overrides: Overrides = None,
    function: Function = None,
    config: Files = None,
    steps: Annotated[int, typer.Option("--steps", help="Updates of one sweep.")] = 100,
    start: Annotated[float, typer.Option("--from", help="The first optimizer.lr.")] = 1e-7,
    stop: Annotated[float, typer.Option("--to", help="The last one, if the loss does not rise before.")] = 10.0,
    repeats: Annotated[int, typer.Option("--repeats", help="Sweeps, each with another seed.")] = 3,
    warm_head: Annotated[int, typer.Option("--warm-head", metavar="STEPS", help="Train the head alone first.")] = 0,
    warm_head_lr: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--warm-head-lr", help="Learning rate of that, 1e-3 by default."),
    ] = None,
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--plot", metavar="FILE", help="Draw it: the loss over the learning rate (png, svg, pdf)."),
    ] = None,
    as_json: AsJson = False,  # noqa: FBT002
    trust_remote_code: Trust = False,  # noqa: FBT002
    debug: Debug = False,  # noqa: FBT002
) -> None:
    """Prints the suggestion, whether it is reliable, and the rate that it gives each group."""
    from .. import running
    from .reporting import rank

    prepared = running.prepare(recipe, function=function, files=config or (), overrides=overrides or ())
    if prepared.stages:
        raise ConfigError("stages: lr-find sweeps one run. Give it the configuration of one stage, without stages.")
    if plot is not None:
        from ..pictures import check_plot_file

        check_plot_file(plot)
    given = {
        "steps": steps,
        "start": start,
        "stop": stop,
        "repeats": repeats,
        "warm_head": warm_head,
    }
    if warm_head_lr is not None:
        given["warm_head_lr"] = warm_head_lr
    sweep = _sweep(given)
    if warm_head_lr is not None and not warm_head:
        raise ConfigError(f"--warm-head-lr {warm_head_lr:g}: without effect without --warm-head. Give both, or none.")
    if trust_remote_code:
        prepared = running.trusting(prepared)
    with rarely_collected():
        from ..lr_finding.finding import find_lr
    found = find_lr(prepared.config, sweep=sweep)
    if rank() != 0:
        return
    _print(found, title=prepared.title, as_json=as_json)
    if plot is not None:
        from .lr_find_plot import draw

        draw(found, plot, title=f"{prepared.title}: learning-rate range test")


def _sweep(given: dict[str, Any]) -> Sweep:
    """The sweep of these options.

    Raises:
        ConfigError: Names each option that makes no sense.
    """
    from ..lr_finding import Sweep

    try:
        return Sweep(**given)
    except ValueError as error:
        lines = (line.partition(":") for line in str(error).splitlines())
        raise ConfigError("\n".join(f"--{_OPTIONS.get(name, name)}:{rest}" for name, _, rest in lines)) from None


def _print(found: Finding, *, title: str, as_json: bool) -> None:
    import json

    from ..wording import rate
    from .tables import print_table

    if as_json:
        print(json.dumps(found.document(), indent=2))
        return
    sweep = found.sweep
    print(f"{title}: {sweep.repeats} x {sweep.steps} updates, optimizer.lr from {sweep.start:g} to "
          f"{sweep.stop:g}, all groups at the plan's ratios to it\n")  # fmt: skip
    print(f"suggestion    {' '.join(found.overrides) or 'none'}")
    alone = [lr for lr in found.repeats if lr is not None]
    if len(alone) > 1:
        print(f"of repeats    {', '.join(rate(lr) for lr in sorted(alone))}")
    print(f"reliable      {'yes' if not found.doubts else 'no'}{', as far as one repeat can tell' * _is_one(found)}")
    for doubt in found.doubts:
        print(f"              {doubt}")
    print()
    if found.rates:
        rows = [(name, rate(lr)) for name, lr in found.rates.items()]
        print_table(["group", "highest learning rate"], rows, right=(1,))


def _is_one(found: Finding) -> bool:
    return found.sweep.repeats == 1 and not found.doubts
