"""Configurations of the recipes with faults put in: each resolves and round trips, or says where it is wrong."""

from __future__ import annotations

import ast
import copy
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from finetune.config import resolved
from finetune.config.dumping import as_yaml, dump_resolved
from finetune.errors import ConfigError
from finetune.optimizers import AdamW
from finetune.run_config import RunConfig
from finetune.tasks.text import TextClassification

GOLDEN = Path(__file__).parents[1] / "golden"
RECIPE = RunConfig(TextClassification(model="some/model", data="pydocs"), optimizer=AdamW(lr=1e-3), output_dir="r")
WEIRD = [
    None, True, False, 0, -1, 1, 3, 2.5, 1e-30, float("nan"), float("inf"), 10**30, "", " ", "none", "null", "auto",
    "off", "lora", "length", "3 epochs", "0 steps", "110%", "1e-5", "no", "~", "x" * 300, "\x07", "é\u202e\U0001f40d",
    "a: b", "[", "!!x", "../..", "{", [], {}, [[]], {"name": "lora"}, {"name": None}, {"name": ["full"]}, {"": 1},
    [{"name": "full"}], {"base": {"base": {}}}, ["head", 3, None],
]  # fmt: skip
KEYS = ["name", "base", "lr", "task", "stages", "average", "data", "train", "recipe", "num_train_epochs", "a b", "é"]
# A fault stands with its path and where that was written, or with the line of the file that cannot be read.
TOLD = re.compile(r" *(\S.* \((command line|recipe|.*\.yaml( line \d+)?)\): .|.*\.yaml( line \d+)?: .|and \d+ more$)")


@cache
def _goldens() -> tuple[dict[str, Any], ...]:
    trees = []
    for path in sorted(GOLDEN.glob("*.*.yaml")):
        tree: dict[str, Any] = {}
        for line in path.read_text().splitlines():
            place, _, text = line.partition(": ")
            *parents, last = place.split(".")
            inside = tree
            for parent in parents:
                inside = inside.setdefault(parent, {})
            inside[last] = ast.literal_eval(text)
        trees.append(tree)
    return tuple(trees)


def _holders(tree: Any) -> list[Any]:
    """Every mapping and list in it."""
    if not isinstance(tree, dict | list):
        return []
    inside = tree.values() if isinstance(tree, dict) else tree
    return [tree, *(holder for item in inside for holder in _holders(item))]


def _mutate(tree: dict[str, Any], rng: random.Random) -> None:
    holder = rng.choice([holder for holder in _holders(tree) if holder])
    key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    value = holder[key]
    other = rng.choice(_holders(rng.choice(_goldens())))
    new = rng.choice([*WEIRD, [value], {"name": value}, str(value), other])
    if isinstance(holder, list):
        holder[key] = copy.deepcopy(new)
        return
    how = rng.choice(["drop", "rename", "replace", "replace", "replace", "add", "move"])
    if how in ("drop", "rename", "move"):
        del holder[key]
    if how == "rename":
        at = rng.randrange(len(key) + 1)
        holder[rng.choice([key[:at] + key[at + 1 :], key[:at] + "x" + key[at:], rng.choice(KEYS)])] = value
    elif how in ("replace", "add"):
        holder[key if how == "replace" else rng.choice(KEYS)] = copy.deepcopy(new)
    elif how == "move":
        tree[key] = value


def _staged(tree: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    stages: list[Any] = []
    for name in "abc"[: rng.randrange(1, 4)]:
        other = rng.choice(_goldens())
        keys = rng.sample([key for key in other if key != "output_dir"], rng.randrange(4))
        stages.append({"name": name, **{key: copy.deepcopy(other[key]) for key in keys}})
    if rng.random() < 0.5:
        stages.append({"name": "mean", "average": rng.choice([{}, {"alpha": 0.3}, {"start": "a", "end": "b"}])})
    return {**tree, "stages": stages}


def _words(tree: dict[str, Any], rng: random.Random) -> list[str]:
    """One or two values of the command line, at places that there are or nearly are."""
    found = []
    for _ in range(rng.choice([0, 0, 1, 2])):
        inside, path = tree, []
        while isinstance(inside, dict) and inside and (not path or rng.random() < 0.7):
            path.append(str(rng.choice([*inside, rng.choice(KEYS)])))
            inside = inside.get(path[-1], {})
        place = rng.choice(["", "", "stages[0].", "stages[7].", "stages."])
        found.append(f"{place}{'.'.join(path)}={rng.choice(WEIRD)}")
    return found


def _case(number: int, folder: Path) -> bool:
    """Whether one configuration is taken; anything but a ConfigError that says where fails."""
    rng = random.Random(f"config {number}")
    tree = copy.deepcopy(rng.choice(_goldens()))
    if rng.random() < 0.4:
        tree = _staged(tree, rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        _mutate(tree, rng)
    if not tree:
        return False
    file, words = folder / "fuzz.yaml", _words(tree, rng)
    file.write_text(as_yaml(tree), encoding="utf-8")
    try:
        found = resolved(rng.choice([None, RECIPE]), [file], words)
    except ConfigError as error:
        lines = str(error).splitlines()
        told = lines[1:] if "faults in the configuration" in lines[0] else lines
        wrong = [line for line in told if not TOLD.match(line)]
        assert told and not wrong, f"case {number}: {wrong} in\n{error}"
        return False
    file.write_text(dump_resolved(found), encoding="utf-8")
    again = resolved(None, [file], [])
    assert (again.config, again.stages) == (found.config, found.stages), f"case {number}"
    return True


def _run(numbers: range, folder: Path) -> None:
    taken = 0
    for number in numbers:
        try:
            taken += _case(number, folder)
        except Exception as error:
            error.add_note(f"case {number}")
            raise
    assert 0.1 < taken / len(numbers) < 0.9  # else it tries one side only


def test_200_configurations_end_in_a_config_or_a_message(tmp_path):
    _run(range(200), tmp_path)


@pytest.mark.drill
def test_2000_configurations_end_in_a_config_or_a_message(tmp_path):
    _run(range(200, 2200), tmp_path)
