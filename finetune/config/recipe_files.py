"""Recipe files: where they are, which functions they hold, and running one."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ..choices import listed, nearest
from ..errors import ConfigError, FinetuneError
from ..run_config import RunConfig


class Recipe(NamedTuple):
    """One function of a recipe file."""

    file: Path
    name: str
    build: Callable[[], RunConfig]


class Listed(NamedTuple):
    """A recipe as the listing shows it, read without running its file."""

    file: Path
    name: str
    summary: str


def shipped(kind: str) -> Path:
    """The folder ``recipes`` or ``accelerate_configs``: inside the package, or beside it in a source tree."""
    package = Path(__file__).resolve().parents[1]
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def shipped_recipes() -> list[Path]:
    """The recipe files that come with this package."""
    return sorted(path for path in shipped("recipes").glob("*.py") if not path.name.startswith("_"))


def find_file(name: str) -> Path:
    """The file of a recipe: a path, or the name of one that comes with this package.

    Raises:
        ConfigError: There is none; the message names the nearest.
    """
    given = Path(name)
    if given.suffix in (".py", ".yaml", ".yml") or "/" in name:
        if os.path.isfile(given):  # Path's own raises for a name that is too long
            return given
        folder = "it is a folder; " if os.path.isdir(given) else ""
        raise ConfigError(f"{name}: no such file ({folder}looked in {Path.cwd()}). Give a recipe's file or name.")
    names = {path.stem: path for path in shipped_recipes()}
    if name in names:
        return names[name]
    raise ConfigError(
        f"no recipe is called {name!r}{nearest(name, names)}; there are {listed(names)}. "
        "finetune recipes lists them; a file of your own is given by its path, e.g. ./mine.py or my.yaml."
    )


def list_recipes(file: Path) -> list[Listed]:
    """The recipe functions of a file, in its order; its code does not run.

    Raises:
        ConfigError: It is not Python.
    """
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except (OSError, SyntaxError, ValueError) as error:
        line = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ConfigError(f"{file}{line}: {getattr(error, 'msg', error)}. Correct the recipe file.") from error
    return [
        Listed(file, node.name, (ast.get_docstring(node) or "").partition("\n")[0])
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and _returns_config(node)
    ]


def load_recipe(name: str, *, function: str | None) -> Recipe:
    """A recipe function; without a name the first one of the file, its offline default.

    Raises:
        ConfigError: No such file or function, or the file fails when it runs.
    """
    file = find_file(name)
    if file.suffix in (".yaml", ".yml"):
        raise ConfigError(f"{file}: a recipe is a Python file. Give this one with --config, or alone.")
    names = [found.name for found in list_recipes(file)]
    if not names:
        raise ConfigError(f"{file}: no recipe in it. Write a function without arguments: def mine() -> RunConfig.")
    function = function or names[0]
    if function not in names:
        raise ConfigError(f"{file} has no recipe {function!r}{nearest(function, names)}; there are {listed(names)}.")
    module = _module(file)
    return Recipe(file, function, lambda: _built(file, module, function))


def _built(file: Path, module: ModuleType, function: str) -> RunConfig:
    try:
        config = getattr(module, function)()
    except FinetuneError:
        raise
    except Exception as error:
        raise _fault(file, error) from error
    if not isinstance(config, RunConfig):
        raise ConfigError(f"{file}: {function}() returned a {type(config).__name__}; expected a RunConfig.")
    return config


def _module(file: Path) -> ModuleType:
    """The file as a module; the running script itself when that is the file, so that its classes exist once."""
    main = sys.modules["__main__"]
    if Path(getattr(main, "__file__", None) or "").resolve() == file.resolve():
        return main
    key = hashlib.blake2b(str(file.resolve()).encode(), digest_size=4).hexdigest()
    spec = importlib.util.spec_from_file_location(f"recipe_{file.stem}_{key}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that what it defines can be pickled for loader workers
    try:
        spec.loader.exec_module(module)
    except FinetuneError:
        raise
    except Exception as error:
        raise _fault(file, error) from error
    return module


def _fault(file: Path, error: Exception) -> ConfigError:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    line = f" line {frames[-1].lineno}" if frames else ""
    return ConfigError(f"{file}{line}: {type(error).__name__}: {error}. Correct the recipe file.")


def _returns_config(node: ast.FunctionDef) -> bool:
    arguments = node.args
    takes_any = arguments.args or arguments.posonlyargs or arguments.kwonlyargs or arguments.vararg or arguments.kwarg
    returns = ast.unparse(node.returns) if node.returns else ""
    return not takes_any and not node.name.startswith("_") and returns.strip("'\"").endswith("RunConfig")
