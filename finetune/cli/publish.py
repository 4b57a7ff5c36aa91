"""``finetune publish``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson, Debug


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Upload a run's model to the Hub, after checking that it opens with the plain library.")(publish)


def publish(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder (output_dir).")],
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="The repository on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,  # noqa: FBT002
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, send nothing.")] = False,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002
    debug: Debug = False,  # noqa: FBT002
) -> None:
    """Publishes, and says what was sent."""
    import json

    from ..hub.publish import Delivery, publish
    from ..hub.upload import Visibility

    found = publish(
        run,
        repo,
        visibility=Visibility.PRIVATE if private else Visibility.PUBLIC,
        delivery=Delivery.DRY_RUN if dry_run else Delivery.UPLOAD,
    )
    if as_json:
        print(json.dumps({**found._asdict(), "card": str(found.card), "dry_run": dry_run}, indent=2))
        return
    print(
        f"{'would publish' if dry_run else 'published'} {found.url}" + (f" at {found.commit}" if found.commit else "")
    )
    print(f"files: {', '.join(found.files)}")
    if found.left_out:
        print(f"left out: {', '.join(found.left_out)}")
