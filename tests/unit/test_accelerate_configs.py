"""Every shipped launch file means to accelerate what it says, down to its nested keys."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from finetune.config.recipe_files import shipped

FILES = sorted(shipped("accelerate_configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def launch_words():
    """The destinations of all launch arguments; accelerate itself never checks nested keys against them."""
    from accelerate.commands.launch import launch_command_parser

    return {action.dest for action in launch_command_parser()._actions}


def unknown_keys(tree: dict, launch_words: set[str]) -> list[str]:
    from accelerate.commands.config.config_args import ClusterConfig

    known = {field.name for field in dataclasses.fields(ClusterConfig)}
    nested = [
        f"{key}.{inner}"
        for key, value in tree.items()
        if isinstance(value, dict)
        for inner in value
        if inner not in launch_words
    ]
    return [key for key in tree if key not in known] + nested


def test_the_set_is_whole():
    assert {path.stem for path in FILES} == {"cpu", "single", "bf16", "fp16", "ddp", "ddp_cpu", "fsdp2", "multi_node"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_reads_every_key(path, launch_words):
    from accelerate.commands.config.config_args import load_config_from_file

    tree = yaml.safe_load(path.read_text())
    assert unknown_keys(tree, launch_words) == []
    for key in ("distributed_type", "mixed_precision"):
        assert isinstance(tree[key], str), f"{key} is a boolean without quotes"
    loaded = load_config_from_file(str(path))
    assert loaded.num_processes == tree["num_processes"]
    assert loaded.mixed_precision == tree["mixed_precision"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_launcher_takes_it(path):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    args = launch_command_parser().parse_args(["--config_file", str(path), "script.py"])
    args, defaults, _ = _validate_launch_command(args)
    assert defaults.num_processes == args.num_processes
    if path.stem == "fsdp2":
        assert args.use_fsdp and args.fsdp_version == 2 and args.fsdp_auto_wrap_policy == "TRANSFORMER_BASED_WRAP"
        assert not args.fsdp_transformer_layer_cls_to_wrap, "the run names the block class"
    if path.stem.startswith("ddp"):
        assert args.multi_gpu, "only this launcher starts several processes without mpirun"


def test_a_typo_would_be_seen(launch_words):
    tree = yaml.safe_load((shipped("accelerate_configs") / "fsdp2.yaml").read_text())
    tree["fsdp_config"]["fsdp_vresion"] = 2
    tree["num_procs"] = 2
    assert unknown_keys(tree, launch_words) == ["num_procs", "fsdp_config.fsdp_vresion"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_says_how_to_start_it(path):
    text = path.read_text()
    assert text.startswith("#") and f"accelerate_configs/{path.name}" in text
