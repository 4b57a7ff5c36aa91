"""``finetune demo``."""

from __future__ import annotations

import typer

from .options import AsJson, Debug


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Fine-tune a real BERT and a small ViT with every strategy, offline, in about four minutes.")(
        demo
    )


def demo(as_json: AsJson = False, debug: Debug = False) -> None:  # noqa: FBT002
    """Runs the demonstration."""
    from ..demonstration import main

    main(as_json=as_json)
