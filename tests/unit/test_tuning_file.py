"""SPACE.yaml to a search; every option is checked as a configuration before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.config.dumping import as_yaml
from finetune.errors import ConfigError, LaunchError, RunFolderError
from finetune.tuning.base import check_space, metric_of, run_of
from finetune.tuning.reading import read_space
from finetune.tuning.running import search_with
from finetune.tuning.space import corners
from finetune.tuning.space_file import read_space_file

TREE = {
    "recipe": "bert_text:freeze",
    "config": {"length": "2 epochs"},
    "metric": "f1",
    "output_dir": "runs/x",
    "sampler": "random",
    "trials": 5,
    "seeds": [1, 2],
    "space": {"optimizer.lr": {"low": 1e-5, "high": 1e-3, "log": True}, "strategy": ["full", {"name": "lora"}]},
}


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def found(tree, *overrides, files=(), **given):
        Path("space.yaml").write_text(as_yaml(tree))
        return read_space_file(Path("space.yaml"), files=files, overrides=overrides, given=given)

    return found


def without(key):
    return {name: value for name, value in TREE.items() if name != key}


def test_a_file_is_read(read):
    found = read(TREE, "batch_size=4", trials=7)
    assert found.root == Path("runs/x")
    assert (found.search.sampler, found.search.trials, found.search.seeds) == ("random", 7, (1, 2))
    config = found.base.resolved(()).config
    assert (config.length, config.batch_size, config.metric) == ("2 epochs", 4, "f1")
    assert metric_of(config) == ("f1", "maximize")
    assert read(TREE, "output_dir=runs/y").root == Path("runs/y")
    assert read(without("output_dir")).root == Path("runs/tune-space")


def test_a_trial_is_a_configuration_that_stands_alone(read, tmp_path):
    found = read(TREE)
    check_space(found.base, found.dimensions)
    from finetune.config import resolve

    for number, assigned in enumerate(corners(found.dimensions)):
        run = run_of(found.base, assigned, seed=7, folder=tmp_path / str(number))
        (tmp_path / "config.yaml").write_text(run.text)
        assert resolve(None, [tmp_path / "config.yaml"], []) == run.config
        values = {each.dimension.path: each.shown for each in assigned}
        assert run.config.optimizer.lr == values["optimizer.lr"] and run.config.strategy.name == values["strategy"]
        assert (run.config.seed, run.config.output_dir) == (7, str(tmp_path / str(number)))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"spaces": {}}, "space.yaml line 1: a search has no 'spaces' (did you mean 'space'?)"),
        ({"recipe": 3}, "recipe: got 3; expected a recipe's name"),
        ({"config": [1]}, "config: got [1]; expected a mapping"),
        ({"sampler": "tep"}, "sampler: got 'tep' (did you mean 'tpe'?)"),
        ({"space": {"optimizer.lr": {"low": 1, "high": 0}}}, "space.optimizer.lr: low is 1 and high is 0"),
    ],
)
def test_faults_name_file_and_line(read, changes, message):
    tree = {key: TREE[key] for key in TREE if key not in changes}
    with pytest.raises(ConfigError) as error:
        read({**changes, **tree})
    assert message in str(error.value) and "space.yaml line " in str(error.value)


def test_no_space_and_no_trials(read):
    with pytest.raises(ConfigError, match="there is no space"):
        read(without("space"))
    with pytest.raises(ConfigError, match="--trials: got 0"):
        read(TREE, trials=0)


@pytest.mark.parametrize(
    "space, message",
    [
        ({"optimizer.lr": [1e-5, -1]}, "optimizer.lr (space.yaml line 2, space.optimizer.lr): got -1"),
        ({"optimizer.lrr": [1]}, "optimizer.lrr (space.yaml line 2, space.optimizer.lrr): adamw has no 'lrr'"),
        ({"batch_size": {"low": 0.5, "high": 2}}, "batch_size (space.yaml line 2, space.batch_size): got 0.5"),
        ({"strategy": ["full", "lorra"]}, "strategy.name (space.yaml line 2, space.strategy): got 'lorra'"),
        (
            {"strategy": [{"name": "lora", "space": {"strategy.rank": {"low": 0, "high": 4}}}]},
            "strategy.rank (space.yaml line 5, space.strategy[0].space.strategy.rank): got 0",
        ),
        ({"strategy": ["full", "lora"], "strategy.rank": [4, 8]}, "full has no 'rank'"),
    ],
)
def test_every_option_is_checked_before_anything_runs(read, space, message):
    found = read({"space": space, **without("space")})
    with pytest.raises(ConfigError) as error:
        check_space(found.base, found.dimensions)
    assert message in str(error.value)


@pytest.mark.parametrize("word", ["optimizer.lr=1e-4", "optimizer={lr: 1e-4}", "strategy=full"])
def test_a_value_that_would_hide_a_dimension_is_refused(read, word):
    found = read(TREE, word)
    with pytest.raises(ConfigError, match=r"is searched at space\.(optimizer\.lr|strategy); leave one out"):
        check_space(found.base, found.dimensions)


def test_a_fault_of_the_rest_is_told_once(read):
    found = read(TREE, "batch_size=0")
    with pytest.raises(ConfigError) as error:
        check_space(found.base, found.dimensions)
    assert str(error.value).count("batch_size (command line)") == 1


def test_a_grid_needs_ends(read, tmp_path):
    found = read({**TREE, "sampler": "grid"})
    with pytest.raises(ConfigError, match="space.optimizer.lr: a grid needs a step"):
        search_with(found.base, found.dimensions, found.search, root=tmp_path / "x", show="nothing")
    assert not (tmp_path / "x").exists()


def test_a_folder_of_something_else_is_refused(read, tmp_path):
    found = read(TREE)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(RunFolderError, match="'thesis.tex', which is no search of ours"):
        search_with(found.base, found.dimensions, found.search, root=tmp_path / "other", show="nothing")
    with pytest.raises(RunFolderError, match="holds no search yet"):
        search_with(found.base, found.dimensions, found.search, root=tmp_path / "x", show="nothing", runs=False)


def test_a_launch_of_several_ranks_is_refused(read, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = read(TREE)
    with pytest.raises(LaunchError, match="several times instead"):
        search_with(found.base, found.dimensions, found.search, root=tmp_path / "x", show="nothing")


def test_stages_are_refused(read):
    stages = [{"name": "a"}, {"name": "b"}]
    found = read({**TREE, "config": {"stages": stages, "output_dir": "x"}, "space": {"batch_size": [1]}})
    with pytest.raises(ConfigError, match="a trial is one run"):
        check_space(found.base, found.dimensions)


def test_python_takes_the_same_space():
    with pytest.raises(ConfigError, match="space.b: got 1"):
        read_space({"b": 1})
