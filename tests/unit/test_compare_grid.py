"""From a grid, or the names of recipes, to cells; and every wrong one as one message."""

from __future__ import annotations

import pytest

from finetune import Curriculum, LoRA, RunConfig
from finetune.comparing.cells import Cell, check_cells, from_configs
from finetune.comparing.grid import read_grid
from finetune.config import resolve
from finetune.errors import ConfigError

GRID = """\
recipe: bert_text
config:
  length: 2 epochs
cells:
  full: {}
  low: {recipe: "bert_text:lora", strategy: {rank: 2}}
axes:
  curriculum: [none, {difficulty: length, start: 0.5}]
  optimizer.lr: [1e-4, 3e-5]
seeds: [1, 2]
metric: f1
output_dir: runs/mine
"""


def grid(folder, text, *overrides, **options):
    (folder / "grid.yaml").write_text(text)
    return read_grid([str(folder / "grid.yaml")], files=(), overrides=overrides, **options)


def test_cells_times_axes(tmp_path):
    found = grid(tmp_path, GRID, "batch_size=8")
    names = [f"{cell}-{course}-{lr}" for cell in ("full", "low") for course in ("none", "curriculum")
             for lr in ("lr0.0001", "lr3e-05")]  # fmt: skip
    assert [cell.name for cell in found.cells] == names
    assert (found.seeds, found.metric, found.split, found.output_dir) == ([1, 2], "f1", "", "runs/mine")
    first, last = found.cells[0].config, found.cells[-1].config
    assert (first.strategy.name, first.curriculum, first.optimizer.lr) == ("full", None, 1e-4)
    assert last.strategy == LoRA(rank=2) and last.optimizer.lr == 3e-5 and last.optimizer.head_lr == 1e-2
    assert last.curriculum == Curriculum(difficulty="length", start=0.5)
    assert {(cell.config.length, cell.config.batch_size) for cell in found.cells} == {("2 epochs", 8)}


def test_every_run_can_be_made_again(tmp_path):
    found = grid(tmp_path, GRID)
    for cell in found.cells:
        run = cell.run(7, tmp_path)
        assert run.output_dir == str(tmp_path / "cells" / cell.name / "seed-7") and run.seed == 7
        (tmp_path / "run.yaml").write_text(cell.text(run))
        assert resolve(None, [tmp_path / "run.yaml"], []) == run


def test_a_run_with_an_object_of_ones_own_is_made_again_by_its_recipe(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from finetune import RunConfig, TextClassification\n\n\n"
        "class Half:\n"
        "    def multiplier(self, progress):\n        return 0.5\n\n"
        "    def momentum(self, progress):\n        return None\n\n\n"
        "def half() -> RunConfig:\n"
        "    return RunConfig(task=TextClassification(model='minilm', data='pydocs'), schedule=Half())\n"
    )
    text = f"recipe: {tmp_path / 'mine.py'}\naxes:\n  length: [2 epochs, 3 epochs]\n"
    for cell in grid(tmp_path, text).cells:
        run = cell.run(7, tmp_path)
        (tmp_path / "run.yaml").write_text(cell.text(run))
        again = resolve(None, [tmp_path / "run.yaml"], [])
        assert (again.seed, again.output_dir, again.length) == (7, run.output_dir, cell.config.length)
        assert type(again.schedule).__name__ == "Half"


def test_recipes_are_cells():
    found = read_grid(["bert_text:full", "bert_text:lora"], files=(), overrides=["seed=5"], seeds="3")
    assert [cell.name for cell in found.cells] == ["full", "lora"]
    assert found.seeds == [5, 6, 7] and found.output_dir == "runs/compare-bert_text"
    found = read_grid(["bert_text", "vit_images:lora"], files=(), overrides=["output_dir=x"], seeds="4,2")
    assert [cell.name for cell in found.cells] == ["bert_text-full", "vit_images-lora"]
    assert found.seeds == [4, 2] and found.output_dir == "x"


def test_runs_as_yaml_are_cells(tmp_path):
    for name, strategy in (("a", "full"), ("b", "freeze")):
        (tmp_path / f"{name}.yaml").write_text(
            f"task: {{name: text_classification, model: minilm, data: pydocs}}\nstrategy: {strategy}"
        )
    found = read_grid([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")], files=(), overrides=())
    assert [(cell.name, cell.config.strategy.name) for cell in found.cells] == [("a", "full"), ("b", "freeze")]
    assert len(found.seeds) == 5


def test_values_get_names_that_set_them_apart(tmp_path):
    text = "recipe: bert_text\naxes:\n  strategy: [full, {name: lora, rank: 2}, {name: lora, rank: 8, dropout: 0.1}]\n"
    assert [cell.name for cell in grid(tmp_path, text).cells] == ["full", "lora-rank2", "lora-rank8-dropout0.1"]
    text = "recipe: bert_text\naxes:\n  strategy: {all: full, few: {name: lora, rank: 2}}\n"
    assert [cell.name for cell in grid(tmp_path, text).cells] == ["all", "few"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds:", "sedes:"), r"grid.yaml line 10: a grid has no 'sedes' \(did you mean 'seeds'\?\)"),
        (("seeds: [1, 2]", "seeds: 0"), r"seeds: got 0; expected a number of seeds"),
        (("strategy: {rank: 2}", "strategy: {rnak: 2}"), r"cell .*: strategy.rnak \(.*grid.yaml line 6\).*'rank'"),
        (("optimizer.lr: [1e-4, 3e-5]", "optimizer.lr: [1e-4, fast]"), r"optimizer.lr \(.*line 9\): got 'fast'"),
        (("optimizer.lr: [1e-4, 3e-5]", "optimizr.lr: [1e-4]"), r"optimizr.*line 9.*did you mean 'optimizer'"),
        (("optimizer.lr: [1e-4, 3e-5]", "optimizer.lr: []"), r"line 9: axes.optimizer.lr: got \[\]; expected a list"),
        (("optimizer.lr: [1e-4, 3e-5]", "seed: [1, 2]"), r"line 9: axes.seed: give seeds: to the comparison"),
        (("full: {}", "full: full"), r"line 5: cells.full: got 'full'; expected a mapping"),
        (("{difficulty: length, start: 0.5}", "none"), r"line 8: axes.curriculum: two values are called 'none'"),
        (
            ("recipe: bert_text", "recipe: a.yaml"),
            r"line \d: recipe: got 'a.yaml'; expected a recipe's name.*--config a.y",
        ),
        (
            ("bert_text:lora", "a.yaml"),
            r"line 6: cells.low.recipe: got 'a.yaml'; .*Write what the file says into the cell",
        ),
        (("bert_text:lora", "bert_text:lorra"), r"no recipe 'lorra' \(did you mean 'lora'\?\)"),
        (("length: 2 epochs", "length: soon"), r"^length \(.*line 3\): 'soon' is not a duration"),
    ],
)
def test_a_wrong_grid_is_one_message(tmp_path, change, message):
    assert change[0] in GRID
    with pytest.raises(ConfigError, match=message):
        grid(tmp_path, GRID.replace(*change))


def test_what_is_no_comparison(tmp_path):
    config = resolve(None, [], ["task={name: text_classification, model: minilm, data: pydocs}"])
    with pytest.raises(ConfigError, match="takes at least two"):
        check_cells(from_configs({"a": config}), [1])
    with pytest.raises(ConfigError, match="'a' and 'b' are the same configuration"):
        check_cells(from_configs({"a": config, "b": RunConfig(**{**vars(config), "seed": 1})}), [1])
    with pytest.raises(ConfigError, match="'a/b' cannot name a folder.*\n.*seeds: 1 stands there twice"):
        check_cells([Cell("a/b", config), Cell("b", RunConfig(**{**vars(config), "length": "1 epoch"}))], [1, 1])
    with pytest.raises(ConfigError, match="'a' should be a RunConfig"):
        from_configs({"a": "full"})
    with pytest.raises(ConfigError, match="a grid stands alone"):
        (tmp_path / "grid.yaml").write_text(GRID)
        read_grid([str(tmp_path / "grid.yaml"), "bert_text"], files=(), overrides=())
    with pytest.raises(ConfigError, match="--seeds five"):
        read_grid(["bert_text:full", "bert_text:lora"], files=(), overrides=(), seeds="five")
