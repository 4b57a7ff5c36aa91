"""Finding and running recipe files, and storing a run that holds a user's own object."""

from __future__ import annotations

import pytest

from finetune.config import resolve
from finetune.config.recipe_files import find_file, list_recipes, load_recipe, shipped, shipped_recipes
from finetune.errors import ConfigError
from finetune.running import prepare

OWN = '''"""Mine."""
from finetune import Full, RunConfig, TextClassification


class Mine:
    """A strategy of my own."""

    def adapt(self, model, new):
        return model

    def groups(self, layers, new):
        return tuple(layers)

    def phases(self, groups):
        return Full().phases(groups)


def first() -> RunConfig:
    """The first."""
    return RunConfig(TextClassification(model="m", data="d"))


def own() -> RunConfig:
    return RunConfig(TextClassification(model="m", data="d"), strategy=Mine())


def fails() -> RunConfig:
    return RunConfig(TextClassification(model="m", data="d"), length="soon")


def other() -> RunConfig:
    return 3


def takes(argument) -> RunConfig: ...
def _private() -> RunConfig: ...
def no_recipe(): ...
'''


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return path


def test_recipes_are_functions_that_return_a_config(mine):
    assert [found.name for found in list_recipes(mine)] == ["first", "own", "fails", "other"]
    assert list_recipes(mine)[0].summary == "The first."


def test_without_a_name_the_first_one_runs(mine):
    assert load_recipe(str(mine), function=None).name == "first"


def test_what_is_not_there_is_named_with_the_nearest(mine, tmp_path):
    for name, function, said in (
        (str(mine), "owm", "did you mean 'own'"),
        ("bert_txt", None, "did you mean 'bert_text'"),
        (str(tmp_path / "gone.py"), None, "no such file"),
        (str(tmp_path) + "/", None, "it is a folder"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_recipe(name, function=function)


def test_a_recipe_that_fails_names_its_line(mine, tmp_path):
    with pytest.raises(ConfigError, match=r"mine.py line \d+: ValueError: length: 'soon' is not a duration"):
        load_recipe(str(mine), function="fails").build()
    with pytest.raises(ConfigError, match=r"other\(\) returned a int"):
        load_recipe(str(mine), function="other").build()
    for text, said in (
        ("def x(:\n", "line 1"),
        ("import nothing_of_that_name\ndef x() -> RunConfig: ...\n", "line 1: ModuleNotFoundError"),
        ("x = 1\n", "no recipe in it"),
    ):
        path = tmp_path / "broken.py"
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            load_recipe(str(path), function=None)


def test_a_run_with_an_own_object_is_stored_by_its_recipe(mine, tmp_path):
    prepared = prepare(str(mine), function="own", files=[], overrides=["seed=3", "schedule=constant"])
    assert "recipe: " in prepared.yaml and "function: own" in prepared.yaml
    stored = tmp_path / "config.yaml"
    stored.write_text(prepared.yaml)
    again = prepare(str(stored), function=None, files=[], overrides=["batch_size=5"])
    assert type(again.config.strategy).__name__ == "Mine"
    assert (again.config.seed, again.config.schedule.name, again.config.batch_size) == (3, "constant", 5)
    assert "batch_size: 5" in again.yaml and "seed: 3" in again.yaml

    (tmp_path / "before.yaml").write_text("batch_size: 7\nseed: 9\n")
    over = prepare(
        "bert_text", function="lora", files=[tmp_path / "before.yaml", stored], overrides=["workers=1"]
    ).config
    assert (over.seed, over.batch_size, over.workers, over.task.model) == (3, 32, 1, "m"), (
        "a whole run replaces all below"
    )


def test_beside_a_stored_recipe_nothing_else_stands(mine, tmp_path):
    stored = tmp_path / "config.yaml"
    for text, said in (
        (f"recipe: {mine}\nseed: 3\n", "line 2: beside 'recipe'"),
        (f"recipe: {mine}\noverrides: 3\n", "line 2: overrides: got 3; expected a mapping"),
        ("recipe: [a]\n", r"line 1: recipe: got \['a'\]; expected a word"),
        (f"recipe: {mine}\nfunction: owm\n", "did you mean 'own'"),
        (f"recipe: {stored}\n", "a recipe is a Python file"),
    ):
        stored.write_text(text)
        with pytest.raises(ConfigError, match=said):
            resolve(None, [stored], [])


def test_the_shipped_files_are_found():
    assert {path.stem for path in shipped_recipes()} >= {"bert_text", "vit_images"}
    assert find_file("bert_text") in shipped_recipes()
    assert (shipped("accelerate_configs") / "fsdp2.yaml").is_file()
