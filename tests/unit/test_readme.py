"""The README says what works: its commands resolve, its Python runs up to ``fit``, and its paths exist."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


COMMANDS = [
    line.partition("#")[0].strip()
    for block in blocks("bash")
    for line in block.splitlines()
    if line.startswith(("finetune train", "finetune plan", "accelerate launch"))
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_resolves(command, monkeypatch):
    from finetune.running import prepare

    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    if words[0] == "accelerate":
        config = words[words.index("--config_file") + 1] if "--config_file" in words else None
        assert config is None or Path(config).is_file()
        words = ["finetune", "train", *words[next(i for i, word in enumerate(words) if word.endswith(".py")) :]]
    function = words[words.index("--recipe") + 1] if "--recipe" in words else None
    overrides = [word for word in words[3:] if "=" in word and not word.startswith("--")]
    assert prepare(words[2], function=function, files=(), overrides=overrides).config.task


def test_the_yaml_is_a_config(tmp_path, monkeypatch):
    from finetune.running import prepare

    (block,) = blocks("yaml")
    assert yaml.safe_load(block)["strategy"]["decay"] == 0.95
    path = tmp_path / "mine.yaml"
    path.write_text(block)
    config = prepare("bert_text", function=None, files=[path], overrides=[]).config
    assert config.task.data.text == "review" and config.output_dir == "runs/reviews"


def test_the_python_builds_what_it_says():
    import finetune

    (block,) = blocks("python")
    tree = ast.parse(block)
    names = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert all(hasattr(finetune, name) for name in names)
    call = next(
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "fit"
    )
    scope = {name: getattr(finetune, name) for name in names}
    task = eval(compile(ast.Expression(call.args[0]), "README", "eval"), scope)
    settings = {word.arg: eval(compile(ast.Expression(word.value), "README", "eval"), scope) for word in call.keywords}
    assert finetune.RunConfig(task, **settings).length == "3 epochs"


@pytest.mark.parametrize("path", re.findall(r"`([\w./]+/|[\w/]+\.(?:py|md|cff|yaml))`", TEXT))
def test_every_path_exists(path):
    found = [ROOT / path, ROOT / "finetune" / path]
    assert any(place.exists() for place in found) or path in ("model/", "mine.yaml")
