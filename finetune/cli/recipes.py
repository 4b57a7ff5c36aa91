"""``finetune recipes``."""

from __future__ import annotations

import typer

from .options import AsJson, Debug


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="List the recipes that come with finetune.")(recipes)


def recipes(as_json: AsJson = False, debug: Debug = False) -> None:  # noqa: FBT002
    """Prints the list."""
    import json

    from ..config.recipe_files import list_recipes, shipped_recipes
    from .tables import print_table

    found = [recipe for file in shipped_recipes() for recipe in list_recipes(file)]
    if as_json:
        rows = [{"file": row.file.stem, "recipe": row.name, "summary": row.summary} for row in found]
        print(json.dumps(rows, indent=2))
        return
    print_table(("file", "recipe", "what it does"), [(row.file.stem, row.name, row.summary) for row in found])
    print("\nfinetune show FILE --recipe NAME prints one; finetune train FILE runs the first of its file.")
