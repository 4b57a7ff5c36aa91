"""Tables and pictures as a stranger hands them in: what is wrong with each, and what is said of it."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

ROWS = [f"the good film {number},{'ab'[number % 2]}" for number in range(40)]
BOTH = ("plan", "train")


class Case(NamedTuple):
    """One faulty input, beside files and folders that are all right.

    Args:
        said: Pattern of the message.
        spoil: Makes it, in the current folder.
        words: Of the command line, behind the verb.
        verbs: Tried one after the other; each must end in the same way.
        code: The exit code.
    """

    said: str
    spoil: Callable[[], Any] = lambda: None
    words: str = ""
    verbs: tuple[str, ...] = BOTH
    code: int = 2


def written(path: str, content: bytes | str) -> Callable[[], Any]:
    data = content if isinstance(content, bytes) else content.encode()

    def make() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)

    return make


def _table(said: str, content: bytes | str, name: str = "bad.csv", *words: str) -> Case:
    return Case(said, written(name, content), f"text.yaml task.data.train={name} {' '.join(words)}")


def csv_with(*rows: str, header: str = "text,label") -> str:
    return "\n".join([header, *ROWS[:20], *rows, *ROWS[20:]]) + "\n"


def _stray(said: str, row: bytes) -> Case:
    return _table(
        f"bad.csv line 22: {said}.*Fix the row, or set task.data.bad_rows: skip",
        csv_with("@").encode().replace(b"@", row),
    )


def _jsonl(row: str) -> str:
    good = [json.dumps({"text": f"a text {number}", "label": "ab"[number % 2]}) for number in range(30)]
    return "\n".join([*good[:9], row, *good[9:]])


def _parquet(columns: dict[str, list[Any]]) -> Callable[[], Any]:
    def make() -> None:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(columns), "bad.parquet")

    return make


def _lines_of(*rows: Any) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def _squad(content: str) -> Case:
    return _table("", content, "bad.json")._replace(words="questions.yaml task.data.train=bad.json")


def _answered(said: str, answers: Any) -> Case:
    row = {"question": "q", "context": "a c", "answers": answers}
    return Case(said, written("bad.jsonl", json.dumps(row)), "questions.yaml task.data.train=bad.jsonl")


def _several(said: str, content: str, name: str, *words: str) -> Case:
    return _table(said, content, name)._replace(words=f"several.yaml task.data.train={name} {' '.join(words)}")


_PARQUET = "text.yaml task.data.train=bad.parquet"
TABLES = {
    "a row with more fields": _stray("3 fields, expected 2", b"one,two,three"),
    "a row with fewer": _stray("1 field, expected 2", b"one"),
    "a NUL": _stray("holds a NUL byte", b"o\0ne,a"),
    "Latin-1": _stray(r"is not UTF-8 \(byte 0xe9\)", b"caf\xe9,a"),
    "a stray quote": _stray("a quote is out of place", b'"one"two,a'),
    "a text without words": _stray("text is empty", b"   ,a"),
    "no label": _stray(r"label \('label'\) is empty", b"one,"),
    "labels of two types": _stray("label '7' is a number, and most are text", b"one,7"),
    "UTF-16": _table("bad.csv is UTF-16 text.*Save it as UTF-8", "text,label\na,b\n".encode("utf-16")),
    "nothing in it": _table(r"bad.csv is empty \(zero bytes\)", b""),
    "a header only": _table("a header and no rows. Add rows", "text,label\n"),
    "blank lines only": _table("has no header", "\n\n\n"),
    "a quote that is never closed": _table("line 22: a quote is opened and never closed", csv_with('"one,a')),
    "two columns of a name": _table("column 'text' is there 2 times. Rename", "text,label,text\na,b,c\n"),
    "a spreadsheet": _table("a compressed file or a spreadsheet", b"PK\x03\x04rest"),
    "packed": _table("a compressed file or a spreadsheet.*Unpack", gzip.compress(b"text,label\na,b\n")),
    "one class": _table("every row has the same class", "text,label\n" + "a,x\n" * 30),
    "one row": _table("every row has the same class", "text,label\na,x\n"),
    "an id as class": _table("30 classes in 30 rows", "text,label\n" + "".join(f"t,{n}\n" for n in range(30))),
    "targets as classes": _table(
        "look like targets.*text_regression", "text,label\n" + "".join(f"t,{n / 7:.3f}\n" for n in range(30))
    ),
    "no such column": _table("has no column 'label'.*it has 'text', 'lable'", csv_with(header="text,lable")),
    "a column of words for targets": Case(
        "train.csv line 2: (target|label) 'negative'", words="numbers.yaml task.data.label=label"
    ),
    "semicolons": _table(
        "fields seem to be separated by semicolons, expected commas", csv_with(header="text;label").replace(",", ";")
    ),
    "half of it cannot be used": _table(
        "bad.csv: 20 of 60 rows cannot be used, and bad_rows: skip leaves out at most 1%",
        csv_with(*["x,y,z"] * 20),
        "bad.csv",
        "task.data.bad_rows=skip",
    ),
    "a ceiling without skip": Case(
        r"most_bad \(command line\): without effect with bad_rows: error", words="text.yaml task.data.most_bad=5%"
    ),
    "a class that train lacks": Case(
        "odd.csv line 3: .*'z'", written("odd.csv", "text,label\na,a\nb,z\n"), "text.yaml task.data.validation=odd.csv"
    ),
    "a share of nothing": Case("leaves no row", words="text.yaml task.data.validation=0.001%"),
    "not JSON": _table("bad.jsonl line 10: is not JSON", _jsonl('{"text": "a", "label": }'), "bad.jsonl"),
    "a list for an object": _table("bad.jsonl line 10: is a list", _jsonl("[1, 2]"), "bad.jsonl"),
    "a key is missing": _table("bad.jsonl line 10: label", _jsonl('{"text": "a"}'), "bad.jsonl"),
    "a key twice": _table("line 10: .*'text' is there twice", _jsonl('{"text": "a", "text": "b"}'), "bad.jsonl"),
    "half a letter": _table("line 10: .*surrogate", _jsonl('{"text": "\\ud800", "label": "a"}'), "bad.jsonl"),
    "a nest": _table("bad.jsonl line 10: is nested too deeply", _jsonl("[" * 100_000), "bad.jsonl"),
    "columns instead of rows": _table("bad.json holds no rows", '{"text": ["a"],\n "label": ["x"]}', "bad.json"),
    "no parquet": _table("cannot be read as parquet", b"PAR1 and nothing else", "bad.parquet"),
    "parquet without rows": Case("bad.parquet has no rows", _parquet({"text": [], "label": []}), _PARQUET),
    "parquet with holes": Case(
        "bad.parquet row 2: text is missing", _parquet({"text": ["a", None, "b"], "label": ["x", "y", "x"]}), _PARQUET
    ),
    "a saved set that is torn": Case(
        "bad cannot be read as a saved data set", written("bad/state.json", "{"), "text.yaml task.data.train=bad"
    ),
    "words without tags": _table("bad.conll line 2", "a\tO\nb\nc\tO\n", "bad.conll")._replace(
        words="words.yaml task.data.train=bad.conll"
    ),
    "an answer beside its text": Case(
        "bad.jsonl .*answer 'x' does not stand at character 0",
        written("bad.jsonl", '{"question": "q", "context": "c", "answers": [{"text": "x", "answer_start": 0}]}\n'),
        "questions.yaml task.data.train=bad.jsonl",
    ),
}


_LISTS = csv_with(*(f"a{number},\"['x', 'y']\"" for number in range(9)), header="text,labels")
_ENDLESS = [{"text": f"t {number}", "label": [1, 10**400, 0.5][number % 3]} for number in range(9)]
TABLES |= {
    "commas in a table of tabs": _table(r"separated by commas \(name it .csv\), expected tabs", csv_with(), "bad.tsv"),
    "a table of another kind": _table("bad.csv is a parquet file. Name it .parquet", b"PAR1 and more"),
    "lines that are packed": _table("bad.jsonl is a compressed file.*Unpack it", gzip.compress(b"{}"), "bad.jsonl"),
    "packed by its name": _table("kind '.gz' cannot be read. Unpack it", b"\x1f\x8b", "bad.csv.gz"),
    "a spreadsheet by its name": _table("kind '.xlsx' cannot be read. Save it as csv", b"PK", "bad.xlsx"),
    "texts that nobody sees": _stray("text is empty", "\u200b \ufeff,a".encode()),
    "half a letter for a label": _table(
        "line 10: label holds half", _jsonl('{"text": "a", "label": "\\ud800"}'), "bad.jsonl"
    ),
    "no end for a label": _table("line 10: label is inf", _jsonl('{"text": "a", "label": Infinity}'), "bad.jsonl"),
    "no end for a target": _table(
        "line 2: target is '1000.*…', expected a finite", _lines_of(*_ENDLESS), "bad.jsonl"
    )._replace(words="numbers.yaml task.data.train=bad.jsonl"),
    "a text twice": Case("expected one column, or two different", words="text.yaml task.data.text=[text,text]"),
    "three texts": Case("expected one column, or two different", words="text.yaml task.data.text=[a,b,c]"),
    "lists that became text": _several("lists that were written as text", _LISTS, "bad.csv", "task.data.separator=,"),
    "a 0 or 1 for each label": _several(
        "3 times 0 or 1 in each row",
        _lines_of(*({"text": f"t {at}", "labels": [at % 2, 0, 1]} for at in range(9))),
        "a.jsonl",
    ),
    "half a letter for a tag": _table(
        "tag 1 is 'B-.ud800'", '{"tokens": ["a"], "tags": ["B-\\ud800"]}', "bad.jsonl"
    )._replace(words="words.yaml task.data.train=bad.jsonl"),
    "an answer without lists": _answered("as many texts as starts", {"text": "c", "answer_start": 2}),
    "more answers than starts": _answered("as many texts as starts", {"text": ["c", "a"], "answer_start": [2]}),
    "no answers in lists": _answered("as many texts as starts", {"text": None, "answer_start": None}),
    "articles that are none": _squad('{"data": [1, 2]}')._replace(said="not built as SQuAD is"),
    "paragraphs that are none": _squad('{"data": [{"paragraphs": null}]}')._replace(said="not built as SQuAD is"),
    "a nest of questions": _squad('{"data": ' + "[" * 100_000)._replace(said="nested too deeply"),
}


def _encoded(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    (image or Image.fromarray(noise)).save(file, kind, **options)
    return file.getvalue()


def _header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _picture(said: str, name: str, content: bytes) -> Case:
    return Case(f"img/red/{name}: {said}", written(f"img/red/{name}", content), "image.yaml")


def _emptied(folder: str) -> Callable[[], Any]:
    def make() -> None:
        for path in Path(folder).iterdir():
            shutil.rmtree(path)

    return make


def _paths(row: str) -> Callable[[], Any]:
    rows = [f"img/{name}/{number:03}.png,{name}" for name in ("red", "green") for number in range(8)]
    return written("paths.csv", "\n".join(["image,label", *rows, row]) + "\n")


def _in_lines(row: dict[str, Any]) -> Case:
    rows = [{"image": f"img/red/{number:03}.png", "label": "red"} for number in range(8)]
    said = "paths.jsonl line 9: the image is .*, expected a path"
    return Case(said, written("paths.jsonl", _lines_of(*rows, row)), "image.yaml task.data.train=paths.jsonl")


_PATHS = "image.yaml task.data.train=paths.csv"
_VECTORS = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
_SCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
IMAGES = {
    "a JPEG cut off": _picture("is truncated", "a.jpg", _encoded("JPEG")[:2000]),
    "a PNG cut off": _picture("is truncated", "a.png", _encoded("PNG")[:2000]),
    "a WebP cut off": _picture("is (broken|truncated|not a picture)", "a.webp", _encoded("WEBP")[:900]),
    "a GIF cut off": _picture("is (broken|truncated)", "a.gif", _encoded("GIF")[:1500]),
    "a TIFF cut off": _picture("is (broken|truncated|not a picture)", "a.tif", _encoded("TIFF")[:2000]),
    "a BMP cut off": _picture("is truncated", "a.bmp", _encoded("BMP")[:2000]),
    "an empty picture": _picture(r"is empty \(zero bytes\)", "a.png", b""),
    "a page saved as a picture": _picture("is not a picture that can be read", "a.jpg", b"<html></html>"),
    "vectors": _picture("is not a picture that can be read", "a.png", _VECTORS),
    "a program for a printer": _picture("is not a picture that can be read", "a.jpg", _SCRIPT),
    "a bomb": _picture("has more than 50 million", "a.png", _header(20_000, 20_000)),
    "too large": _picture("8000 x 7000 pixels, at most 50 million", "a.png", _header(8_000, 7_000)),
    "floats for pixels": _picture("32-bit float pixels", "a.tif", _encoded("TIFF", Image.new("F", (4, 4)))),
    "a link out of the folder": Case(
        "img/red/out.png: is a link out of the folder",
        lambda: os.symlink("/etc/hostname", "img/red/out.png"),
        "image.yaml",
    ),
    "a link to a folder": Case(
        "img/out: is a link to a folder", lambda: os.symlink("/usr/share", "img/out"), "image.yaml"
    ),
    "a pipe": Case("img/red/a.png: is not a file", lambda: os.mkfifo("img/red/a.png"), "image.yaml"),
    "a picture of no class": Case(
        "img/a.png: is in no class folder", lambda: shutil.copy("img/red/000.png", "img/a.png"), "image.yaml"
    ),
    "splits for classes": Case(
        "all holds splits .*train: all/train",
        lambda: shutil.copytree("img", "all/train"),
        "image.yaml task.data.train=all",
    ),
    "a folder without pictures": Case(
        "img holds no pictures", lambda: [path.unlink() for path in Path("img").rglob("*.png")], "image.yaml"
    ),
    "a folder without classes": Case("img holds no class folders", _emptied("img"), "image.yaml"),
    "one class of pictures": Case(
        "every (row|picture|image) has the same class",
        lambda: [shutil.rmtree(f"img/{name}") for name in ("blue", "green")],
        "image.yaml",
    ),
    "a path to nothing": Case("paths.csv line 18: .*no such file", _paths("img/red/none.png,red"), _PATHS),
    "a path to a folder": Case("paths.csv line 18: .*no such file", _paths("img/red,red"), _PATHS),
    "no path": Case("paths.csv line 18: the image is missing", _paths(",red"), _PATHS),
    "splits beside other things": Case(
        r"all holds splits \('test', 'train'\)",
        lambda: [shutil.copytree("img", f"all/{name}") for name in ("train", "test", "notes")],
        "image.yaml task.data.train=all",
    ),
    "pictures of no kind that is read": Case(
        "img holds no pictures. It holds '000.HEIC'",
        lambda: [path.rename(path.with_suffix(".HEIC")) for path in Path("img").rglob("*.png")],
        "image.yaml",
    ),
    "a class in other letters": Case(
        "is a class whose name is no UTF-8", lambda: shutil.copytree(b"img/red", b"img/ro\xe9"), "image.yaml"
    ),
    "a number for a picture": _in_lines({"image": 5, "label": "red"}),
    "a list for a picture": _in_lines({"image": ["a.png"], "label": "red"}),
    "a size that no picture has": Case(
        "task.image_size: .* cannot prepare a picture", words="image.yaml task.image_size=1"
    ),
    "pictures for a task on texts": Case(
        "img is a folder of images, and the task is text_classification", words="text.yaml task.data.train=img"
    ),
}
