"""Every recipe function trains a tiny model to the losses it always gave: what a refactoring must not change.

Once the plain way, whose losses no technique of speed may move, and once as it runs: without padding, dropout draws
other random numbers, so the losses of texts are others.
"""

from __future__ import annotations

import dataclasses

import pytest
import transformers
from packaging.version import Version

from finetune.config.recipe_files import list_recipes, load_recipe, shipped_recipes
from finetune.speed import PLAIN
from finetune.training import fit
from tests.runs import (
    history,
    image_label_task,
    image_task,
    masked_task,
    question_task,
    text_label_task,
    text_task,
    token_task,
)

GOLDEN = "tests/golden"
MEASURED_ON = Version("5.23")  # of transformers; 5.17 draws other random weights for a ViT, hence for the tiny ones
CASES = [(path.stem, name) for path in shipped_recipes() for name in [found.name for found in list_recipes(path)]]
TINY = {
    "text_classification": text_task,
    "text_multi_label": text_label_task,
    "image_classification": image_task,
    "image_multi_label": image_label_task,
    "token_classification": token_task,
    "question_answering": question_task,
    "masked_language": masked_task,
}


def _tiny(task, folder):
    """A tiny task of the same kind, in the recipe's wrappers."""
    if hasattr(task, "base"):
        return dataclasses.replace(task, base=_tiny(task.base, folder))
    return dataclasses.replace(TINY[task.name](folder), weights=task.weights)


@pytest.mark.parametrize("way", ["plain", "fast"])
@pytest.mark.parametrize(("recipe", "function"), CASES)
def test_losses_are_the_golden_ones(tmp_path, pytestconfig, recipe, function, way):
    if recipe.startswith("vit_") and Version(transformers.__version__) < MEASURED_ON:
        pytest.skip(f"the tiny ViTs of transformers {transformers.__version__} start from other weights")
    config = load_recipe(recipe, function=function).build()
    settings = vars(config) | {
        "task": _tiny(config.task, tmp_path),
        "length": "6 steps",
        "batch_size": 8,
        "log_every": "1 steps",
    }
    settings["speed"] = PLAIN if way == "plain" else config.speed
    fit(**settings | {"output_dir": str(tmp_path / "run"), "show": "nothing"})
    lines = [line for line in history(tmp_path / "run") if "loss" in line]
    losses = [line["loss"] for line in lines]
    path = pytestconfig.rootpath / GOLDEN / f"{recipe}.{function}{'.fast' if way == 'fast' else ''}.txt"
    if pytestconfig.getoption("--update-golden"):
        path.write_text("".join(f"{line['step']} {line['loss']:.8f}\n" for line in lines))
    expected = [float(line.split()[1]) for line in path.read_text().splitlines()]
    assert losses == pytest.approx(expected, rel=1e-5)
    assert len(losses) == 6
