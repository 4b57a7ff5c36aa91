"""``stages:`` in a configuration: what lies over what, and that every fault names its stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finetune.config import resolve, resolved
from finetune.config.dumping import dump_resolved
from finetune.errors import ConfigError
from finetune.optimizers import AdamW
from finetune.run_config import RunConfig
from finetune.stages import Average, Stage
from finetune.stages.spec import check_stages, ends_of, faults_of, folder_of, start_of
from finetune.strategies import Freeze, GradualUnfreeze
from finetune.tasks.growing_length import GrowingLength
from finetune.tasks.masked_language import MaskedLanguage
from finetune.tasks.text import TextClassification

BASE = """
task: {name: text_classification, model: minilm, data: pydocs, max_length: 48}
optimizer: {name: adamw, lr: 1e-4}
length: 3 epochs
output_dir: runs/series
stages:
  - name: adapt
    task: {name: masked_language, share: 0.2}
    length: 1 epoch
  - name: probe
    strategy: freeze
    optimizer: {lr: 1e-2}
  - name: unfreeze
    strategy: gradual_unfreeze
  - name: mean
    average: {alpha: 0.25}
"""


def staged(tmp_path: Path, text: str = BASE, *words: str):
    file = tmp_path / "series.yaml"
    file.write_text(text)
    return resolved(None, [file], words)


def faults(tmp_path, text, *words):
    with pytest.raises(ConfigError) as error:
        staged(tmp_path, text, *words)
    return str(error.value)


def test_each_stage_is_the_configuration_with_its_overlay(tmp_path):
    stages = staged(tmp_path).stages
    assert [stage.name for stage in stages] == ["adapt", "probe", "unfreeze", "mean"]
    assert [stage.starts_from for stage in stages] == ["own", "previous", "previous", "previous"]
    adapt, probe, unfreeze, mean = (stage.run for stage in stages)
    # another task keeps what both are about
    assert adapt.task == MaskedLanguage(model="minilm", data="pydocs", max_length=48, share=0.2)
    assert adapt.length == "1 epoch" and adapt.optimizer == AdamW(lr=1e-4)
    assert probe.task == TextClassification(model="minilm", data="pydocs", max_length=48)
    assert probe.strategy == Freeze() and probe.optimizer == AdamW(lr=1e-2) and probe.length == "3 epochs"
    assert unfreeze.strategy == GradualUnfreeze() and unfreeze.optimizer == AdamW(lr=1e-4)
    assert mean == Average(alpha=0.25)
    assert ends_of(stages, 3) == (1, 2) and start_of(stages, 2) == 1 and start_of(stages, 0) is None
    assert folder_of(stages, 2, output_dir=Path("runs")) == Path("runs/3-unfreeze")


def test_a_stage_may_name_its_own_model(tmp_path):
    text = BASE.replace("    strategy: freeze\n", "    strategy: freeze\n    task: {model: other/model}\n")
    stages = staged(tmp_path, text).stages
    assert stages[1].starts_from == "own" and stages[1].run.task.model == "other/model"
    assert staged(tmp_path, BASE, "stages[1].task.model=mine/model").stages[1].starts_from == "own"
    scratch = BASE.replace("    strategy: freeze\n", "    strategy: freeze\n    task: {weights: scratch}\n")
    assert staged(tmp_path, scratch).stages[1].starts_from == "own"


def test_what_wraps_a_task_keeps_it_too(tmp_path):
    wrapped = "task: {name: growing_length, base: {name: text_classification}, start: 8}"
    text = BASE.replace("    strategy: gradual_unfreeze\n", f"    {wrapped}\n")
    run = staged(tmp_path, text).stages[2].run
    assert run.task == GrowingLength(base=TextClassification(model="minilm", data="pydocs", max_length=48), start=8)


def test_the_command_line_lies_over_every_stage_or_over_one(tmp_path):
    stages = staged(
        tmp_path,
        BASE,
        "length=5 steps",
        "stages[1].optimizer.lr=0.5",
        "stages.2.length=7 steps",
        "task.model=mine/one",
    ).stages
    runs = [stage.run for stage in stages[:3]]
    assert [run.length for run in runs] == ["5 steps", "5 steps", "7 steps"]
    assert [run.optimizer.lr for run in runs] == [1e-4, 0.5, 1e-4]
    # a model is that of the first stage; the others follow from it
    assert [run.task.model for run in runs] == ["mine/one"] * 3
    assert [stage.starts_from for stage in stages[:3]] == ["own", "previous", "previous"]
    shorthand = staged(tmp_path, BASE, "stages[1].strategy=full", "stages[0].task.share=0.3").stages
    assert shorthand[1].run.strategy.name == "full" and shorthand[0].run.task.share == 0.3


def test_a_number_is_a_word_where_one_is_meant(tmp_path):
    words = ("task.data.label=3", "stages[1].task.data.label=4e5", "output_dir=2024")
    found = staged(tmp_path, BASE, *words)
    assert [stage.run.task.data.label for stage in found.stages[:3]] == ["3", "4e5", "3"]
    (tmp_path / "stored.yaml").write_text(dump_resolved(found))  # where nothing was written on a command line
    again = resolved(None, [tmp_path / "stored.yaml"], [])
    assert again.stages == found.stages and again.config.output_dir == "2024"


def test_the_command_line_says_where_the_first_stage_starts(tmp_path):
    text = BASE.replace("share: 0.2", "share: 0.2, model: other/one")
    stages = staged(tmp_path, text, "task.model=mine/one").stages
    assert stages[0].run.task.model == "mine/one"
    text = BASE.replace("    strategy: freeze\n", "    strategy: freeze\n    task: {model: other/one}\n")
    words = ("task.model=mine/one", "stages[2].task.model=mine/two", "stages[3].average.start=probe")
    stages = staged(tmp_path, text, *words).stages
    assert [stage.run.task.model for stage in stages[:3]] == ["mine/one", "other/one", "mine/two"]


WRAPPED = BASE.replace("{name: text_classification, ", "{name: l2_sp, base: {name: text_classification, ").replace(
    "max_length: 48}", "max_length: 48}}"
)
WRAPPED = WRAPPED.replace("    task: {name: masked_language, share: 0.2}\n", "")


@pytest.mark.parametrize(
    ("text", "word"),
    [(BASE, "task.model=mine/one"), (BASE, "task.weights=scratch"), (WRAPPED, "task.base.model=mine/one")],
)
def test_what_is_stored_makes_the_same_stages(tmp_path, text, word):
    found = staged(tmp_path, text, "length=5 steps", "stages[1].optimizer.lr=0.5", word)
    assert [stage.starts_from for stage in found.stages] == ["own", "previous", "previous", "previous"]
    (tmp_path / "stored.yaml").write_text(dump_resolved(found))
    again = resolved(None, [tmp_path / "stored.yaml"], [])
    assert again.stages == found.stages
    assert yaml.safe_load(dump_resolved(again)) == yaml.safe_load(dump_resolved(found))


def test_a_recipe_may_have_stages_laid_over_it(tmp_path):
    file = tmp_path / "stages.yaml"
    file.write_text("stages: [{name: one, length: 2 steps}, {name: two}]\n")
    recipe = RunConfig(TextClassification(model="minilm", data="pydocs"), length="9 steps", output_dir="runs/x")
    assert [stage.run.length for stage in resolved(recipe, [file], []).stages] == ["2 steps", "9 steps"]


def test_faults_name_their_stage_and_where_it_is_written(tmp_path):
    text = BASE.replace("lr: 1e-2", "lr: fast").replace("share: 0.2", "share: 2").replace("alpha: 0.25", "alpha: 3")
    said = faults(tmp_path, text)
    assert "3 faults" in said
    assert "stages[1].optimizer.lr" in said and f"{tmp_path / 'series.yaml'} line 12" in said
    assert "stages[0].task.share" in said and "stages[3].average.alpha" in said


def test_a_fault_of_what_all_stages_share_is_told_once(tmp_path):
    said = faults(tmp_path, BASE.replace("length: 3 epochs", "length: 3 epochs\nbatch_size: 0"))
    assert said.startswith("batch_size (") and said.count("batch_size") == 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  - name: probe\n    strategy: freeze", "  - strategy: freeze", r"stages\[1\]\.name.*2-<name>"),
        ("name: probe", "name: adapt", r"stages\[1\]\.name.*is the name of stages\[0\] already"),
        ("name: probe", "name: ../probe", r"stages\[1\]\.name.*a word that can name a folder"),
        ("alpha: 0.25", "alpha: 0.25, start: prob", r"stages\[3\]\.average\.start.*did you mean 'probe'"),
        ("alpha: 0.25", "alpha: 0.25, end: mean", r"stages\[3\]\.average\.end.*no stage 'mean' before"),
        ("alpha: 0.25", "alpha: 0.25, start: unfreeze", r"stages\[3\]\.average\.start.*is the end too"),
        ("alpha: 0.25", "alpha: 0.25, end: adapt", r"stages\[3\]\.average\.start.*'adapt' starts from no stage"),
        ("alpha: 0.25", "beta: 0.25", r"stages\[3\]\.average\.beta"),
        ("average: {alpha: 0.25}", "average: {}\n    length: 1 epoch", r"stages\[3\]\.length.*trains nothing"),
        ("average: {alpha: 0.25}", "average: 0.5", r"stages\[3\]\.average.*a mapping such as"),
        ("strategy: gradual_unfreeze", "output_dir: runs/other", r"stages\[2\]\.output_dir"),
        ("strategy: gradual_unfreeze", "strategie: freeze", r"stages\[2\]\.strategie.*did you mean 'strategy'"),
        ("output_dir: runs/series", "seed: 1", r"output_dir.*each stage is a folder in it"),
        (
            "  - name: adapt\n    task: {name: masked_language, share: 0.2}\n    length: 1 epoch",
            "  - 5",
            r"stages\[0\]",
        ),
    ],
)
def test_wrong_combinations_are_one_error(tmp_path, old, new, expected):
    assert old in BASE
    with pytest.raises(ConfigError, match=expected) as error:
        staged(tmp_path, BASE.replace(old, new))
    assert "faults" not in str(error.value)


@pytest.mark.parametrize("stages", ["stages: []", "stages: 5", "stages: {a: 1}"])
def test_stages_are_a_list(tmp_path, stages):
    text = BASE[: BASE.index("stages:")] + stages
    assert "expected a list of mappings" in faults(tmp_path, text)


def test_a_stage_that_is_not_there_cannot_be_changed(tmp_path):
    assert "write stages[0].key=value to stages[3].key=value" in faults(tmp_path, BASE, "stages[4].seed=1")
    text = BASE[: BASE.index("stages:")]
    assert "there are none to lay values over" in faults(tmp_path, text, "stages[0].seed=1")


def test_one_run_is_not_taken_from_a_series(tmp_path):
    (tmp_path / "series.yaml").write_text(BASE)
    with pytest.raises(ConfigError, match="of several, 'adapt', 'probe', 'unfreeze', 'mean'"):
        resolve(None, [tmp_path / "series.yaml"], [])


def test_stages_made_in_python_are_checked_too():
    class Own:
        def load_model(self): ...
        def splits(self): ...
        def load_split(self, name): ...
        def forward(self, model, batch, progress): ...
        def score(self, predictions): ...

    config = RunConfig(Own())
    assert faults_of([Stage("a", config), Stage("b", config, starts_from="own")]) == []
    with pytest.raises(ConfigError, match=r"stages\[1\]\.task: a Own has no field model"):
        check_stages([Stage("a", config), Stage("b", config)])
    with pytest.raises(ConfigError, match=r"stages\[0\]\.average: the first stage has nothing to average"):
        check_stages([Stage("a", Average())])
    with pytest.raises(ConfigError, match="there are none"):
        check_stages([])
    with pytest.raises(ValueError, match="at most 1"):
        Average(alpha=1.5)


def test_what_the_page_shows_is_a_configuration(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "stages.md").read_text(encoding="utf-8")
    stages = staged(tmp_path, page.split("```yaml\n")[1].split("```")[0], "stages[1].length=1 epoch", "seed=7").stages
    assert [stage.name for stage in stages] == ["adapt", "probe", "unfreeze", "mean"]
    assert isinstance(stages[0].run.task, MaskedLanguage) and stages[0].run.task.max_length == 256
    assert ends_of(stages, 3) == (1, 2)
