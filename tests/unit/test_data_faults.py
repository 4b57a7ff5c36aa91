from __future__ import annotations

import json
import warnings

import pytest
from datasets import Dataset

from finetune.data.sources import read
from finetune.data.spec import Data
from finetune.errors import DataError

GOOD = [f"text number {number},{'ab'[number % 2]}" for number in range(300)]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def classify(name, **fields):
    return read(Data(train=name, text="text", label="label", **fields), "train", task="text_classification")


def csv_with(row: str | bytes) -> bytes:
    """300 good rows with one other in the middle, in line 152."""
    row = row.encode() if isinstance(row, str) else row
    lines = ["text,label", *GOOD]
    return "\n".join(lines[:151]).encode() + b"\n" + row + b"\n" + "\n".join(lines[151:]).encode() + b"\n"


STRAY = {
    "ragged": ("one,two,three,four", "4 fields, expected 2"),
    "one field": ("one", "1 field, expected 2"),
    "bad UTF-8": (b"caf\xe9,a", r"is not UTF-8 \(byte 0xe9\)"),
    "NUL": (b"ca\0fe,a", "holds a NUL byte"),
    "quote": ('"one"two,a', "a quote is out of place"),
    "empty text": (",a", "text is empty"),
    "blank text": ("  ,a", "text is empty"),
    "empty label": ("one,", r"label \('label'\) is empty"),
    "mixed label": ("one,7", "label '7' is a number, and most are text"),
}


@pytest.mark.parametrize("kind", STRAY)
def test_a_stray_row_is_named_or_skipped(tmp_path, kind):
    row, words = STRAY[kind]
    (tmp_path / "a.csv").write_bytes(csv_with(row))
    with pytest.raises(DataError, match=f"^a.csv line 152: {words}.*Fix the row, or set task.data.bad_rows: skip"):
        classify("a.csv")
    with pytest.warns(UserWarning, match=f"a.csv: left out 1 of 301 rows .*line 152: {words}"):
        table = classify("a.csv", bad_rows="skip")
    assert len(table) == 300 and table.where(150) == "a.csv line 153" and table.texts()[150] == ("text number 150",)


WHOLE = {
    "empty": (b"", "is empty"),
    "header only": (b"text,label\n", "a header and no rows"),
    "blank": (b"\n\n", "has no header"),
    "unclosed quote": (csv_with('"one,a'), "line 152: a quote is opened and never closed"),
    "two columns of a name": (b"text,label,text\na,b,c\n", "column 'text' is there 2 times"),
    "UTF-16": ("text,label\na,b\n".encode("utf-16"), "is UTF-16 text"),
    "spreadsheet": (b"PK\x03\x04rest", "spreadsheet"),
    "one class": (b"text,label\na,x\nb,x\n", "every row has the same class"),
    "an id as class": ("\n".join(["text,label", *[f"t,{n}" for n in range(30)]]).encode(), "30 classes in 30 rows"),
    "targets as classes": (
        "\n".join(["text,label", *[f"t,{n / 7:.3f}" for n in range(30)]]).encode(),
        "look like targets.*text_regression",
    ),
    "classes that differ in spaces": (b"text,label\na,x\nb, x\nc,y\n", "differ only in spaces"),
}


@pytest.mark.parametrize("policy", ["error", "skip"])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_broken_file_is_never_skipped(tmp_path, kind, policy):
    content, words = WHOLE[kind]
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=words):
        classify("a.csv", bad_rows=policy)


def test_the_first_faults_are_shown_and_the_rest_counted(tmp_path):
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *GOOD, *["x,y,z"] * 8]))
    with pytest.raises(DataError) as caught:
        classify("a.csv")
    assert str(caught.value).splitlines() == [
        "8 rows cannot be used:",
        *[f"  a.csv line {line}: 3 fields, expected 2" for line in range(302, 307)],
        "  and 3 more rows",
        "Fix the rows, or set task.data.bad_rows: skip (it leaves out at most 1%).",
    ]


def test_no_more_than_one_percent_is_skipped(tmp_path):
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *GOOD, *["x,y,z"] * 4]))
    with pytest.raises(DataError, match="4 of 304 rows cannot be used.*at most 1%"):
        classify("a.csv", bad_rows="skip")


def test_a_quote_that_swallows_lines_counts_all_of_them(tmp_path):
    lines = ["text,label", *GOOD]
    lines[10] = '"' + lines[10]
    lines[60] = lines[60].replace("text", 'text"')
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="51 of 300 rows"):
        classify("a.csv", bad_rows="skip")


JSON = {
    "not JSON": ('{"text": "a", "label": }', "is not JSON"),
    "a list": ("[1, 2]", "is a list, expected an object"),
    "no label": ('{"text": "a"}', r"label \('label'\) is empty"),
    "null text": ('{"text": null, "label": "a"}', "text is missing"),
    "a number as text": ('{"text": 5, "label": "a"}', "text is '5' of type int, expected text"),
    "a number as label": ('{"text": "a", "label": 5}', "label '5' is a number, and most are text"),
    "a list as label": ('{"text": "a", "label": ["a"]}', "label is a list"),
    "a key twice": ('{"text": "a", "text": "b", "label": "a"}', "key 'text' is there twice"),
    "half a letter": ('{"text": "a \\ud800", "label": "a"}', "surrogate"),
    "too deep": ("[" * 100_000, "nested too deeply"),
    "bad UTF-8": (b'{"text": "caf\xe9", "label": "a"}', "is not UTF-8"),
}


@pytest.mark.parametrize("kind", JSON)
def test_a_stray_object_is_named_or_skipped(tmp_path, kind):
    row, words = JSON[kind]
    good = [json.dumps({"text": f"text {number}", "label": "ab"[number % 2]}).encode() for number in range(200)]
    row = row.encode() if isinstance(row, str) else row
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*good[:3], row, *good[3:]]))
    with pytest.raises(DataError, match=f"^a.jsonl line 4: .*{words}"):
        classify("a.jsonl")
    with pytest.warns(UserWarning, match="left out 1 of 201 rows"):
        assert len(classify("a.jsonl", bad_rows="skip")) == 200


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"5", b'{"text": ["a", "b"],\n "label": ["x", "y"]}', b"[1, 2]", b"[{"]
)
def test_json_without_rows(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match="^a.json .*[Ee]xpected (one object a line|a list)"):
        classify("a.json")


def test_parquet_that_is_broken_or_empty(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        classify("a.parquet")
    Dataset.from_dict({"text": [], "label": []}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="b.parquet has no rows"):
        classify("b.parquet")
    Dataset.from_dict({"text": ["a", None, "b"], "label": [0, 1, None]}).to_parquet(tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"(?s)c.parquet row 2: text is missing.*row 3: label \('label'\) is empty"):
        classify("c.parquet")


@pytest.mark.parametrize("value", ["nan", "inf", "", "1_0", "five", "1e60"])
def test_targets_are_finite_numbers(tmp_path, value):
    (tmp_path / "a.csv").write_text(f"text,label\na,1\nb,{value}\n")
    with pytest.raises(DataError, match="^a.csv line 3: (target|label)"):
        read(Data(train="a.csv"), "train", task="text_regression")


def test_a_label_out_of_the_range_of_its_classes():
    from datasets import ClassLabel, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(num_classes=2)})
    data = Dataset.from_dict({"text": ["a", "b"], "label": [0, -1]}, features=features)
    with pytest.raises(DataError, match=r"data.train row 2: label \('label'\) is empty"):
        read(Data(train=data), "train", task="text_classification")


def test_rows_that_are_in_train_too_are_counted(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,y\nc,y\n")
    (tmp_path / "b.csv").write_text("text,label\nb,y\nd,x\na,y\n")
    data = Data(train="a.csv", validation="b.csv", test="c.csv")
    with pytest.warns(UserWarning, match="2 of 3 texts of validation are in train too"):
        read(data, "validation", task="text_classification")
    (tmp_path / "c.csv").write_text("text,label\ne,y\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(data, "test", task="text_classification", train=read(data, "train", task="text_classification"))
