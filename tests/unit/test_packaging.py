"""What a wheel holds: the package, with recipes and launches inside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import finetune
from finetune.config.recipe_files import shipped, shipped_recipes

TREE = Path(finetune.__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The package as a wheel would hold it, without an index or a network."""
    pytest.importorskip("setuptools", minversion="77")  # what pyproject.toml builds with
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("finetune", "recipes", "accelerate_configs"):
        shutil.copytree(TREE / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "LICENSE"):
        shutil.copy(TREE / name, source / name)
    (source / "README.md").write_text("")
    words = [sys.executable, "setup.py", "-q", "build", "--build-base", str(folder / "build")]
    subprocess.run(words, cwd=source, check=True, capture_output=True, text=True)
    return folder / "build" / "lib"


def test_recipes_and_launches_are_inside_the_package_and_nowhere_else(built):
    assert [path.name for path in built.iterdir()] == ["finetune"]
    for kind in ("recipes", "accelerate_configs"):
        inside = {path.name for path in (built / "finetune" / kind).iterdir()}
        assert inside == {path.name for path in shipped(kind).glob("*.*")}
    assert (built / "finetune" / "py.typed").is_file() and (
        built / "finetune" / "model_cards" / "card.md.jinja"
    ).is_file()


def test_the_installed_package_finds_them(built):
    code = (
        "from finetune.config.recipe_files import shipped, shipped_recipes as r; print(shipped('recipes'), len(r()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(built), os.environ["PYTHONPATH"]))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=built.parent
    )
    assert done.stdout.split() == [str(built / "finetune" / "recipes"), str(len(shipped_recipes()))]


def test_the_source_tree_finds_them_beside_the_package():
    assert shipped("recipes") == TREE / "recipes" and shipped("accelerate_configs") == TREE / "accelerate_configs"
