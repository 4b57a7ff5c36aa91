"""``finetune demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson, Debug

Output = Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where the runs go.")]


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Fine-tune a real BERT and a small ViT with every strategy, offline, in about three minutes.")(
        demo
    )


def demo(output: Output = Path("runs/demo"), as_json: AsJson = False, debug: Debug = False) -> int:  # noqa: FBT002
    """Runs the demonstration."""
    from ..demonstration import main

    return main(output=output, json_only=as_json)
