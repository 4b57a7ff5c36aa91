"""Files with random damage: each is read, or refused in one message that names it; nothing else comes out."""

from __future__ import annotations

import io
import json
import random
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.cli.reporting import printable
from finetune.config import resolved
from finetune.data.questions import read_questions
from finetune.data.sources import read
from finetune.data.spec import Data
from finetune.data.tagged import read_sentences
from finetune.errors import FinetuneError
from tests.tiny_data import tagged

WEIRD = [
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"'", b",", b"\t", b"\r\n", b"\r", b"\n\n", b"{", b"]", b"[" * 2000),
    *(b"\\ud800", b"null", b"NaN", b"1e999", b"-1", b"9" * 5000, b"\x1b[2J", b": ", b"- ", b"&a [*a, *a]"),
    "é\u202e\U0001f40d".encode(),
]
TEXTS = [(f"the good film {number}", "ab"[number % 2]) for number in range(30)]
FORMATS = {
    "a.jpg": "JPEG",
    "a.png": "PNG",
    "a.gif": "GIF",
    "a.webp": "WEBP",
    "a.tif": "TIFF",
    "a.bmp": "BMP",
    "a.ppm": "PPM",
}


def _csv() -> bytes:
    return "\n".join(["text,label", *(f'"{text}",{label}' for text, label in TEXTS)]).encode()


def _jsonl() -> bytes:
    return "\n".join(json.dumps({"text": text, "label": label}) for text, label in TEXTS).encode()


def _conll() -> bytes:
    return "\n".join(
        "".join(f"{word}\t{tag}\n" for word, tag in zip(*one, strict=True)) for one in tagged(12)
    ).encode()


def _squad() -> bytes:
    asked = [{"id": "1", "question": "who?", "answers": [{"text": "cat", "answer_start": 4}]}] * 4
    return json.dumps(
        {"version": "1", "data": [{"paragraphs": [{"context": "The cat sat.", "qas": asked}]}] * 3}
    ).encode()


def _parquet() -> bytes:
    import pyarrow
    import pyarrow.parquet

    file, (texts, labels) = io.BytesIO(), zip(*TEXTS, strict=True)
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": labels}), file)
    return file.getvalue()


def _picture(kind: str, size: int = 40) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def _texts(path: Path, bad_rows: str) -> int:
    most = {"most_bad": "60%"} if bad_rows == "skip" else {}
    return len(read(Data(train=str(path), bad_rows=bad_rows, **most), "train", task="text_classification"))


def _sentences(path: Path, bad_rows: str) -> int:
    return len(read_sentences(Data(train=str(path), bad_rows=bad_rows), "train"))


def _questions(path: Path, bad_rows: str) -> int:
    return len(read_questions(Data(train=str(path), bad_rows=bad_rows), "train"))


def _images(path: Path, bad_rows: str) -> int:
    """Beside sound ones; what ``skip`` keeps can be decoded, whatever is broken inside."""
    folder = path.parent / "images" / path.name
    for place in ("x/1.bmp", "x/2.bmp", "y/1.bmp"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(_sound())
    path.rename(folder / "y" / path.name)
    most = {"most_bad": "60%"} if bad_rows == "skip" else {}
    table = read(Data(train=str(folder), bad_rows=bad_rows, **most), "train", task="image_classification")
    if bad_rows == "skip":
        assert all(table.image(index).mode == "RGB" for index in range(len(table)))
    return len(table)


@cache
def _sound() -> bytes:
    return _picture("BMP", 4)


def _config(path: Path, bad_rows: str) -> int:
    resolved(None, [path], [])
    return 1


CONFIG = b"""# a run
task: {name: text_classification, model: minilm, data: {train: a.csv, text: text, label: label}}
optimizer:
  name: adamw
  lr: 1e-5
strategy: {name: gradual_unfreeze, base: {name: lora, rank: 4}}
length: "3 epochs"
output_dir: runs/x
"""
Reading = Callable[[Path, str], int]
SOURCES: dict[str, tuple[Callable[[], bytes], Reading]] = {
    "a.csv": (_csv, _texts),
    "a.jsonl": (_jsonl, _texts),
    "a.parquet": (_parquet, _texts),
    "a.conll": (_conll, _sentences),
    "a.json": (_squad, _questions),
    "a.yaml": (lambda: CONFIG, _config),
    **{name: (lambda kind=kind: _picture(kind), _images) for name, kind in FORMATS.items()},
}


def _damaged(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at, length = rng.randrange(len(found) + 1), rng.choice([1, 3, 40, 400])
        how = rng.choice(["flip", "flip", "drop", "twice", "insert", "insert", "cut", "zero"])
        if how == "flip" and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif how == "drop":
            del found[at : at + length]
        elif how == "twice":
            found[at:at] = found[at : at + length]
        elif how == "insert":
            found[at:at] = rng.choice(WEIRD)
        elif how == "cut" and rng.random() < 0.3:
            del found[at:]
        elif how == "zero":
            found[at : at + length] = bytes(len(found[at : at + length]))
    return bytes(found)


def _case(number: int, folder: Path) -> bool:
    """Whether one file is taken."""
    rng = random.Random(f"input {number}")
    name = [*SOURCES][number % len(SOURCES)]
    make, reading = SOURCES[name]
    path = folder / name
    path.write_bytes(_damaged(make(), rng))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            assert reading(path, rng.choice(["error", "skip"])) > 0
        except FinetuneError as error:
            assert error.exit_code == 2 and name in str(error), f"{number}: {error!r}"
            _check(str(error), number)
            return False
    for one in told:
        if one.category is UserWarning:  # others are for developers, and the command line does not show them
            _check(str(one.message), number)
    return True


def _check(message: str, number: int) -> None:
    lines = printable(message).split("\n")
    assert len(lines) <= 20 and all(line.isprintable() and len(line) < 700 for line in lines), f"{number}: {message!r}"


def _run(numbers: range, folder: Path) -> None:
    taken = 0
    for number in numbers:
        (folder / str(number)).mkdir()
        try:
            taken += _case(number, folder / str(number))
        except Exception as error:
            error.add_note(f"case {number}")
            raise
    assert 0.1 < taken / len(numbers) < 0.9  # else it tries one side only


def test_260_damaged_files_are_read_or_refused(tmp_path):
    _run(range(260), tmp_path)


@pytest.mark.drill
def test_2000_damaged_files_are_read_or_refused(tmp_path):
    _run(range(260, 2260), tmp_path)
