"""``finetune evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import AsJson, Debug, Trust, TrustCode


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Score a run's model on a split.")(evaluate)


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder (output_dir).")],
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="train, validation or test.")] = "test",
    trust_code: TrustCode = False,  # noqa: FBT002
    trust_remote_code: Trust = False,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002
    debug: Debug = False,  # noqa: FBT002
) -> None:
    """Prints the scores."""
    import json

    from ..running import evaluate_folder
    from ..wording import number
    from .reporting import rank
    from .tables import print_table

    code: Literal["refuse", "run"] = "run" if trust_code else "refuse"
    scores = evaluate_folder(run, split=split, code=code, trust_remote_code=trust_remote_code)
    if rank() != 0:
        return
    if as_json:
        print(json.dumps(scores, indent=2))
        return
    print_table(("metric", f"{split} split"), [(name, number(value)) for name, value in scores.items()], right=(1,))
