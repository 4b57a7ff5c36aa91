"""Every recipe function: what it means, as flat text; a change of any default shows here as a line.

After a change that is meant: ``python -m tests.recipes.test_recipes`` writes the files anew; read the difference.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from finetune.config import dump, resolve
from finetune.config.recipe_files import Recipe, list_recipes, load_recipe, shipped_recipes
from finetune.run_config import RunConfig, as_plain

GOLDEN = Path(__file__).parents[1] / "golden"
RECIPES = [load_recipe(str(file), function=found.name) for file in shipped_recipes() for found in list_recipes(file)]


def title(recipe: Recipe) -> str:
    return f"{recipe.file.stem}.{recipe.name}"


def flattened(config: RunConfig) -> str:
    """``path: value`` lines."""
    lines: list[str] = []

    def walk(path: str, value: object) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(f"{path}.{key}" if path else key, inner)
        else:
            lines.append(f"{path}: {value!r}")

    walk("", as_plain(config))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("recipe", RECIPES, ids=title)
def test_a_recipe_means_what_it_meant(recipe):
    assert flattened(recipe.build()) == (GOLDEN / f"{title(recipe)}.yaml").read_text()


def test_every_golden_file_has_its_recipe():
    assert {path.stem for path in GOLDEN.glob("*.*.yaml")} == {title(recipe) for recipe in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES, ids=title)
def test_a_recipe_survives_being_stored(recipe, tmp_path):
    stored = tmp_path / "config.yaml"
    stored.write_text(dump(recipe.build()))
    assert resolve(None, [stored], []) == recipe.build()
    assert resolve(RECIPES[0].build(), [stored], []) == recipe.build()


@pytest.mark.parametrize("file", shipped_recipes(), ids=lambda file: file.stem)
def test_a_recipe_file_is_a_door(file):
    """It imports finetune and nothing else of ours, lists its functions in order, and has a row for each."""
    tree = ast.parse(file.read_text())
    names = [found.name for found in list_recipes(file)]
    calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert f"main({', '.join(names)})" in calls
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules <= {"__future__", "dataclasses", "finetune"}
    rows = [line.split()[0] for line in (ast.get_docstring(tree) or "").splitlines() if line.strip()]
    assert [row for row in rows if row in names] == names
    assert all(found.summary for found in list_recipes(file))


@pytest.mark.parametrize("stem", sorted({recipe.file.stem for recipe in RECIPES}))
def test_runs_of_one_file_do_not_share_a_folder(stem):
    folders = [recipe.build().output_dir for recipe in RECIPES if recipe.file.stem == stem]
    assert len(set(folders)) == len(folders)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each in RECIPES:
        (GOLDEN / f"{title(each)}.yaml").write_text(flattened(each.build()))
