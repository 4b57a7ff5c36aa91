"""Inputs as a stranger hands them in: what is wrong with each, how the command ends, and what it says."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bad_data import IMAGES, TABLES, Case, written
from tests.tiny_data import write_texts

RESUME = ("train --resume",)
_LONG = "x" * 300
PATHS = {
    "no such file": Case(
        "no file or folder 'trian.csv'.*did you mean 'train.csv'", words="text.yaml task.data.train=trian.csv"
    ),
    "a file of no known kind": Case(
        "a file of kind '.txt' cannot be read", written("a.txt", "a"), "text.yaml task.data.train=a.txt"
    ),
    "a folder of data files": Case(
        "own is a folder of data files; name the file itself",
        written("own/a.csv", "text\n"),
        "text.yaml task.data.train=own",
    ),
    "a pipe for a table": Case(
        "'a.csv' is neither a file nor a folder", lambda: os.mkfifo("a.csv"), "text.yaml task.data.train=a.csv"
    ),
    "a name that is too long": Case("File name too long", words=f"text.yaml task.data.train={_LONG}"),
    "a file for a name": Case(
        "'train.csv' is a file, not a name. Write task.data.train=train.csv", words="text.yaml task.data=train.csv"
    ),
    "a folder for a name": Case(
        "'img' is a folder, not a name. Write task.data.train=img", words="image.yaml task.data=img"
    ),
    "a path for a name": Case("'./img' is a folder, not a name", words="image.yaml task.data=./img"),
    "a folder that looks like a Hub id": Case(
        "'own/img' is a folder, not a name. Write task.data.train=own/img",
        lambda: shutil.copytree("img", "own/img"),
        "image.yaml task.data=own/img",
    ),
    "no such data set": Case("no data set is called 'sst'.*did you mean 'sst2'", words="text.yaml task.data=sst"),
    "escapes in a name": Case(
        r"no file or folder '\\x1b\[2J\\n.csv'", words="text.yaml task.data.train=\x1b[2J\n.csv"
    ),
    "escapes in the name of a file": Case(
        r"a\\x1b\[2J.csv line 2: 1 field",
        written("a\x1b[2J.csv", "text,label\na\n"),
        "text.yaml task.data.train=a\x1b[2J.csv",
    ),
    "no such configuration": Case("none.yaml: no such file", words="none.yaml"),
    "no such recipe": Case("'bert_txt'.*did you mean 'bert_text'", words="bert_txt"),
    "no such function": Case("bert_text.* has no .*'lorra'.*did you mean 'lora'", words="bert_text --recipe lorra"),
    "a run folder that is a file": Case(
        "train.csv is a file, expected a folder", words="text.yaml output_dir=train.csv", verbs=("train",)
    ),
    "a run folder below a file": Case(
        "train.csv/run cannot be used: Not a directory",
        words="text.yaml output_dir=train.csv/run",
        verbs=("train",),
        code=74,
    ),
    "a run folder that holds other things": Case(
        "img is not empty: .*no run of ours", words="text.yaml output_dir=img", verbs=("train",)
    ),
    "a table of nobody": Case("no file or folder '~nobody9/a.csv'", words="text.yaml task.data.train=~nobody9/a.csv"),
    "a model of nobody": Case("there is no such folder", words="text.yaml task.model=~nobody9/bert"),
    "a run folder at home": Case("output_dir .*'~/run' .*write the path in full", words="text.yaml output_dir=~/run"),
    "a NUL in a run folder": Case(r"output_dir .*'a.x00b' holds a NUL byte", words="text.yaml output_dir=a\0b"),
    "a run folder in other letters": Case(
        "output_dir .*a byte that is no UTF-8", words="text.yaml output_dir=caf\udce9"
    ),
    "a table in other letters": Case(
        "task.data.train .*a byte that is no UTF-8",
        lambda: shutil.copy(b"train.csv", b"caf\xe9.csv"),
        "text.yaml task.data.train=caf\udce9.csv",
    ),
    "a recipe whose name is too long": Case("no such file", words=f"{_LONG}.yaml"),
    "a metric whose name is too long": Case(
        "is not known, and no such file is here", words=f"text.yaml task.metrics=[{_LONG}]"
    ),
    "a model whose name is too long": Case("no Hub id either", words=f"text.yaml task.model={_LONG}"),
    "a name that the Hub has not": Case("no Hub id either", words="text.yaml task.model=a--b"),
    "thousands of digits": Case("seed .*got '999.*expected a whole number", words=f"text.yaml seed={'9' * 5000}"),
    "a run without end": Case("expected at most 100,000,000; give less", words="text.yaml length=99999999999steps"),
    "evaluations without end": Case(
        "2,499,999 evaluations .*evaluate less often", words="text.yaml length=9999999steps"
    ),
    "the current folder": Case("is not empty: .*no run of ours", words="text.yaml output_dir=.", verbs=("train",)),
    "a run folder whose name is too long": Case(
        "File name too long", words=f"text.yaml output_dir={_LONG}", verbs=("train",), code=74
    ),
}


def _changed(path: str, **changes: Any) -> Callable[[], Any]:
    def make() -> None:
        found = json.loads(Path(path).read_text())
        Path(path).write_text(json.dumps({**found, **changes}))

    return make


def _cut(path: str) -> Callable[[], Any]:
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[: Path(path).stat().st_size // 2])


def _without(*paths: str) -> Callable[[], Any]:
    return lambda: [Path(path).unlink() for path in paths]


def _weights(name: str) -> Callable[[], Any]:
    return lambda: os.rename("bert/model.safetensors", f"bert/{name}")


_BAD = "model 'bert' cannot be loaded: "
MODELS = {
    "no such model": Case(
        "'bart' is not in the local cache, and the Hub cannot be reached", words="text.yaml task.model=bart"
    ),
    "a path to no model": Case("there is no such folder", words="text.yaml task.model=./bart"),
    "a file for a model": Case("is a file. Give the folder", words="text.yaml task.model=bert/config.json"),
    "no configuration": Case("lacks config.json|cannot be loaded", _without("bert/config.json"), "text.yaml"),
    "a configuration cut off": Case(_BAD, _cut("bert/config.json"), "text.yaml"),
    "an architecture that nobody knows": Case(_BAD, _changed("bert/config.json", model_type="brett"), "text.yaml"),
    "no weights": Case("lacks .*model.safetensors", _without("bert/model.safetensors"), "text.yaml"),
    "weights cut off": Case(_BAD, _cut("bert/model.safetensors"), "text.yaml"),
    "weights as a pickle": Case("(pickle|safetensors)", _weights("pytorch_model.bin"), "text.yaml"),
    "weights of another size": Case(
        "model 'bert': the checkpoint lacks .* or has them in another shape",
        _changed("bert/config.json", hidden_size=16),
        "text.yaml",
    ),
    "heads that do not divide": Case(_BAD, _changed("bert/config.json", num_attention_heads=5), "text.yaml"),
    "an index of parts that are not there": Case(
        "model.* 'bert'.*",
        lambda: [
            _weights("other.safetensors")(),
            written("bert/model.safetensors.index.json", '{"weight_map": {"a": "b.safetensors"}}')(),
        ],
        "text.yaml",
    ),
    "no tokenizer": Case(
        "'bert' has no tokenizer", _without("bert/tokenizer.json", "bert/tokenizer_config.json"), "text.yaml"
    ),
    "a tokenizer cut off": Case(_BAD, _cut("bert/tokenizer.json"), "text.yaml"),
    "a model of images": Case("'vit' has no tokenizer .*; it is a model of images", words="text.yaml task.model=vit"),
    "a model of texts": Case(
        r"'bert' has no image processor \(preprocessor_config.json\); it is a model of texts",
        words="image.yaml task.model=bert",
    ),
    "an image processor cut off": Case(
        "model 'vit' cannot be loaded", _cut("vit/preprocessor_config.json"), "image.yaml"
    ),
    "an adapter": Case(
        "is a folder with an adapter, not a model",
        lambda: os.rename("bert/config.json", "bert/adapter_config.json"),
        "text.yaml",
    ),
    "an empty folder": Case("'none'", lambda: os.mkdir("none"), "text.yaml task.model=none"),
}

_CUT = "text.yaml output_dir=runs/cut"


def _every(name: str) -> Callable[[], Any]:
    return lambda: [_cut(str(path))() for path in Path("runs/cut/checkpoints").glob(f"*/{name}")]


CHECKPOINTS = {
    "no whole checkpoint left": Case("no checkpoint", _every("model.safetensors"), _CUT, RESUME, 74),
    "no manifest left": Case(
        "no checkpoint",
        lambda: [path.unlink() for path in Path("runs").rglob("MANIFEST.json")],
        _CUT,
        RESUME,
        74,
    ),
    "checkpoints with nothing in them": Case(
        "no checkpoint",
        lambda: [(shutil.rmtree(path), path.mkdir()) for path in Path("runs/cut/checkpoints").iterdir()],
        _CUT,
        RESUME,
        74,
    ),
    "no run": Case("is no run folder of ours", _without("runs/cut/.run.json"), _CUT, RESUME),
    "a mark that is no JSON": Case("is no run folder of ours", written("runs/cut/.run.json", "{"), _CUT, RESUME),
    "a format of the future": Case(
        "has the format 99; this finetune reads",
        _changed("runs/cut/.run.json", format_version=99),
        _CUT,
        RESUME,
    ),
    "another plan": Case("batch_size", words=f"{_CUT} batch_size=7", verbs=RESUME),
    "another data set": Case("data", lambda: write_texts(Path("train.csv"), 26, seed=5), _CUT, RESUME),
    "a run that is not to be touched": Case("is not empty: it holds a run.*--resume", words=_CUT, verbs=("train",)),
    "both at once": Case("--resume .*--overwrite", words=_CUT, verbs=("train --resume --overwrite",)),
    "a score of an unfinished run": Case("runs/cut is no finished run", words="runs/cut", verbs=("evaluate",)),
    "a score of no run": Case("img is no finished run", words="img", verbs=("evaluate",)),
    "a score with weights cut off": Case(
        "cannot be loaded", _cut("runs/whole/model/model.safetensors"), "runs/whole --split validation", ("evaluate",)
    ),
    "a score with a configuration that is none": Case(
        "config.yaml line 1: not YAML", written("runs/whole/config.yaml", "task: {"), "runs/whole", ("evaluate",)
    ),
    "going on with what is finished": Case(
        "holds a finished run; there is nothing to resume", words="text.yaml output_dir=runs/whole", verbs=RESUME
    ),
    "publishing what is not finished": Case("finished run", words="runs/cut me/x --dry-run", verbs=("publish",)),
}

CASES = {"table": TABLES, "image": IMAGES, "path": PATHS, "model": MODELS, "checkpoint": CHECKPOINTS}
