"""Wrong configurations as a stranger writes them: every fault at once, where it stands, in no time, without torch."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from finetune.config.yaml_reader import MAX_BYTES
from finetune.errors import ConfigError
from finetune.running import prepare

RUN = "task: {name: text_classification, model: minilm, data: pydocs}\noutput_dir: runs/x\n"
SERIES = f"""{RUN}stages:
  - name: adapt
    length: 1 epoch
  - name: probe
    strategy: freeze
  - name: mean
    average: {{alpha: 0.5}}
"""


def said(tmp_path, text: str | bytes, *words: str) -> list[str]:
    """The lines of the message, without the folder."""
    file = tmp_path / "c.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        prepare(str(file), function=None, files=(), overrides=words)
    assert time.process_time() - began < 5  # alone below 2; a deep or large file once took minutes
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


# What is appended to a run, and what each fault says: its path, its line, what it got or could have been.
FAULTS = {
    "key at the top": ("bacth_size: 3", ["bacth_size (c.yaml line 3): * did you mean 'batch_size'"]),
    "key inside": ("optimizer: {lrr: 3}", ["optimizer.lrr (c.yaml line 3): adamw has no 'lrr' (did you mean 'lr'?)"]),
    "key deep inside": (
        "strategy:\n  name: discriminative\n  base:\n    name: lora\n    rnak: 3",
        ["strategy.base.rnak (c.yaml line 7): lora has no 'rnak' (did you mean 'rank'?)"],
    ),
    "stage for stages": ("stage: []", ["stage (c.yaml line 3): * did you mean 'stages'"]),
    "types": (
        "batch_size: '3'\nseed: 1.5\nworkers: yes",
        ["batch_size (c.yaml line 3): got '3'", "workers (c.yaml line 5): got 'yes'", "seed (c.yaml line 4): got 1.5"],
    ),
    "units": (
        "length: 3 epoch s\nevaluate_every: 1 hour\nlog_every: 5\nmicro_batch: 8",
        [
            "length (c.yaml line 3): '3 epoch s' is not a duration",
            "micro_batch (c.yaml line 6): '8' is not a micro-batch; write auto, e.g. '8 examples'",
            "evaluate_every (c.yaml line 4): '1 hour' is not",
            "log_every (c.yaml line 5): 5 is not",
        ],
    ),
    "lengths of nothing, beside another fault": (
        "length: 10%\nseed: x\nlog_every: 0 steps\nevaluate_every: 0 epochs",
        [
            "length (c.yaml line 3): '10%' is a share of nothing",
            "evaluate_every (c.yaml line 6): '0 epochs' is no interval",
            "log_every (c.yaml line 5): '0 steps' is no interval",
            "seed (c.yaml line 4): got 'x'",
        ],
    ),
    "the member has no such field": (
        "strategy: {name: freeze, rank: 3}",
        ["strategy.rank (c.yaml line 3): freeze has no 'rank'; write strategy.rank with strategy.name: lora"],
    ),
    "no such member": ("schedule: cosin", ["schedule.name (c.yaml line 3): got 'cosin'; expected one of 'constant'"]),
    "a list for a name": ("strategy: {name: [lora]}", ["strategy.name (c.yaml line 3): got ['lora']"]),
    "null for a component": ("schedule: null", ["schedule (c.yaml line 3): got null; expected one of 'constant'"]),
    "a list for a component": ("optimizer: [adamw]", ["optimizer (c.yaml line 3): got ['adamw']"]),
    "no, which YAML 1.1 reads as false": ("precision: no", ["precision.name (c.yaml line 3): got 'no'"]),
    "hexadecimal, which YAML 1.1 reads as 31": ("seed: 0x1f", ["seed (c.yaml line 3): got '0x1f'"]),
    "a number beyond all bounds": ("optimizer: {lr: 1e999}", ["optimizer.lr (c.yaml line 3): got inf"]),
    "one in a list": (
        "optimizer: {betas: [0.9, x]}",
        ["optimizer.betas (c.yaml line 3): got [0.9, 'x']; expected a list of 2, each a number"],
    ),
    "keys in a list": (
        "curriculum: {difficulty: length, powr: 2}\nspeed: {packed: yes}",
        ["curriculum.powr (c.yaml line 3): * did you mean 'power'", "speed.packed (c.yaml line 4): got 'yes'"],
    ),
    "keys twice": (
        "seed: 1\nseed: 2\nlength: 1 step\nlength: 2 steps",
        ["c.yaml line 4: seed is given twice (first on line 3)", "c.yaml line 6: length is given twice"],
    ),
    "merge keys": ("<<: {seed: 3}", ["<< (c.yaml line 3): the configuration has no '<<'"]),
    "a tab": ("optimizer:\n\tlr: 3", ["c.yaml line 4: not YAML: found character '\\t'"]),
    "tags": (
        "seed: !!python/object/apply:os.system [ls]\nworkers: !!python/name:os.system ''",
        ["c.yaml line 3: the tag !!python/object/apply:os.system; only", "c.yaml line 4: the tag !!python/name"],
    ),
    "two documents": ("---\nseed: 1", ["c.yaml line 3: not YAML: but found another document"]),
    "keys that are no words": ("3: 4\n? [a]\n: 5", ["c.yaml line 3: the key 3 is", "c.yaml line 4: the key ['a'] is"]),
    "a number of 5,000 digits": ("seed: " + "9" * 5000, ["c.yaml line 3: '999*9' is no int that can be read"]),
    "a nest": ("a: " + "[" * 5000 + "]" * 5000, ["c.yaml line 3: not YAML: nested deeper than 30"]),
    "800 kB of numbers": ("a: [" + "1," * 400_000 + "]", ["c.yaml line 3: * more than 20,000 values"]),
    "an alias bomb": (
        "a: &a [l,l,l,l,l,l,l,l,l]\n"
        + "".join(
            f"{key}: &{key} [{','.join([f'*{was}'] * 9)}]\n" for was, key in zip("abcdef", "bcdefg", strict=True)
        ),
        ["c.yaml line *: more than 20,000 values once its aliases are followed"],
    ),
}


def _tells(line: str, expected: str) -> bool:
    position = 0
    for part in map(str.strip, expected.split("*")):
        position = line.find(part, position)
        if position < 0:
            return False
        position += len(part)
    return True


def _check(lines: list[str], expected: list[str]) -> None:
    told = lines[1:] if "faults in the configuration" in lines[0] else lines
    assert len(told) == len(expected), "\n".join(lines)
    for line, words in zip(told, expected, strict=True):
        assert _tells(line, words), (line, words)


@pytest.mark.parametrize("case", FAULTS)
def test_every_fault_stands_with_its_path_and_its_line(tmp_path, case):
    text, expected = FAULTS[case]
    _check(said(tmp_path, RUN + text + "\n"), expected)
    windows = (RUN + text + "\n").replace("\n", "\r\n").encode("utf-8-sig")
    _check(said(tmp_path, windows), expected)


WHOLE_FILES = {
    "empty": (b"", "c.yaml: empty"),
    "only comments": (b"# nothing\n", "c.yaml: empty"),
    "a list": (b"- a\n- b\n", "c.yaml: a list at the top level"),
    "latin-1": ("task: täglich\n".encode("latin-1"), "c.yaml: not UTF-8 text (byte 7)"),
    "UTF-16": (RUN.encode("utf-16"), "c.yaml: not UTF-8 text (byte 0)"),
    "NUL": (b"task: \x00\n", "c.yaml: not YAML"),
    "10 MB": (b"a: [" + b"1," * (5 * MAX_BYTES) + b"]", "c.yaml: larger than 1,000,000 bytes"),
}


@pytest.mark.parametrize("case", WHOLE_FILES)
def test_a_file_that_is_no_configuration(tmp_path, case):
    content, expected = WHOLE_FILES[case]
    lines = said(tmp_path, content)
    assert len(lines) == 1 and lines[0].startswith(expected), lines


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    for name in ("folder.yaml", "none.yaml"):
        with pytest.raises(ConfigError, match=rf"{name}: no such file"):
            prepare(str(tmp_path / name), function=None, files=(), overrides=())
        with pytest.raises(ConfigError, match=rf"{name}: (Is a directory|No such file)"):
            prepare("bert_text", function=None, files=(tmp_path / name,), overrides=())
    with pytest.raises(ConfigError, match=r"(?s)folder\.yaml: .*none\.yaml: "):
        prepare("bert_text", function=None, files=(tmp_path / "folder.yaml", tmp_path / "none.yaml"), overrides=())


WORDS = {
    ("seed",): ["seed (command line): not key=value"],
    ("=3", "seed:3", ".seed=3"): ["=3 (command line): not", "seed:3 (command line)", ".seed=3 (command line): not"],
    ("optimiser.lr=3",): ["optimiser (command line): * did you mean 'optimizer'"],
    ("seed=3", "seed=4"): ["seed (command line): given twice, the second time by 'seed=4'"],
    ("seed.x=1",): ["seed (command line): got {'x': 1}"],
    ("optimizer.betas=[0.9", "strategy={name: l"): ["optimizer.betas (command line): ", "strategy (command line)"],
    ("stages[0].seed=1", "seed=x"): ["stages (command line): there are none", "seed (command line): got 'x'"],
    ("stages=[{name: a}]",): ["stages (command line): there are none to lay values over"],
}  # fmt: skip


@pytest.mark.parametrize("words", WORDS)
def test_words_of_the_command_line(tmp_path, words):
    _check(said(tmp_path, RUN, *words), WORDS[words])


@pytest.mark.parametrize(
    "place", ["stages[3]", "stages[01]", "stages.01", "stages.x", "stages[-1]", "stages[x]", "stages[\u0661]"]
)
def test_a_word_for_a_stage_that_is_not_there_is_never_without_effect(tmp_path, place):
    lines = said(tmp_path, SERIES, f"{place}.seed=1")
    assert len(lines) == 1 and "(command line): " in lines[0]
    assert "write stages[0].key=value to stages[2].key=value" in lines[0] or "has no 'stages[" in lines[0]


SERIES_FAULTS = {
    "in every stage, in the average and in what they share": (
        {
            "strategy: freeze": "optimizer: {ler: 3}",
            "alpha: 0.5": "alpha: 5, start: zz",
            "output_dir: runs/x": "output_dir: runs/x\nbatch_size: x\nlength: 10%",
        },
        [
            "batch_size (c.yaml line 3): got 'x'",
            "stages[1].optimizer.ler (c.yaml line 9): adamw has no 'ler'",
            "length (c.yaml line 4): '10%' is a share of nothing",
            "stages[2].average.alpha (c.yaml line 11): got 5",
            "stages[2].average.start (c.yaml line 11): no stage 'zz' before this one; there are 'adapt', 'probe'",
        ],
    ),
    "a name twice, beside another fault": (
        {"name: probe": "name: adapt", "alpha: 0.5": "alpha: x"},
        ["stages[2].average.alpha (c.yaml line 9): got 'x'", "stages[1].name (c.yaml line 6): 'adapt' is the name of"],
    ),
    "a name that is missing, of which the average speaks": (
        {"name: probe\n   ": "seed: -1\n   ", "alpha: 0.5": "start: probe"},
        ["stages[1].name (c.yaml line 6): missing", "stages[1].seed (c.yaml line 6): got -1"],
    ),
    "something else in the list": (
        {"- name: adapt\n    length: 1 epoch": "- null", "strategy: freeze": "stages: []"},
        ["stages[0] (c.yaml line 4): got null; expected a mapping", "stages[1].stages (c.yaml line 6): a stage holds"],
    ),
    "no list": (
        {SERIES[SERIES.index("stages:") :]: "stages: 5\nbatch_size: 0\n"},
        ["stages (c.yaml line 3): got 5; expected a list of mappings", "batch_size (c.yaml line 4): got 0"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SERIES_FAULTS)
def test_all_faults_of_a_series_come_at_once(tmp_path, case):
    changes, expected = SERIES_FAULTS[case]
    text = SERIES
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    _check(said(tmp_path, text), expected)


def test_many_faults_are_cut_off(tmp_path):
    lines = said(tmp_path, RUN + "".join(f"k{number}: 1\n" for number in range(9_000)))
    assert lines[0] == "9000 faults in the configuration" and lines[-1] == "  and 8970 more" and len(lines) == 32


def test_a_message_needs_no_torch(tmp_path):
    (tmp_path / "c.yaml").write_text(SERIES.replace("length: 1 epoch", "length: 10%"))
    code = (
        "import sys; from finetune.cli import main\n"
        "try: main(argv=['train', 'c.yaml', 'seed=x'])\n"
        "except SystemExit as end: print(end.code, sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((os.getcwd(), os.environ["PYTHONPATH"]))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    )
    assert done.stdout.split("\n")[0] == "2 []"
    assert done.stderr.splitlines()[0] == "error: 2 faults in the configuration" and "Traceback" not in done.stderr
