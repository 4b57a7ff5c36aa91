"""What may be meant and may be a slip: it is read, with a warning that names it."""

from __future__ import annotations

import json
import unicodedata
import warnings

import pytest
from PIL import Image

from finetune.data import csv_rows
from finetune.data.sources import read
from finetune.data.spec import Data
from finetune.data.tagged import read_sentences
from finetune.errors import DataError
from finetune.tasks.splits import Splits
from finetune.training import plan_run
from tests.runs import config, replaced, run, text_task


def classes(folder, *labels):
    rows = [f"text {number},{labels[number % len(labels)]}" for number in range(30)]
    (folder / "a.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    return read(Data(train=str(folder / "a.csv")), "train", task="text_classification").label_names


@pytest.mark.parametrize(
    "labels", [("Pos", "neg", "pos"), tuple(unicodedata.normalize(kind, "é") for kind in ("NFC", "NFD"))]
)
def test_classes_that_look_alike_are_told(tmp_path, labels):
    with pytest.warns(UserWarning, match="differ only in capitals or in how letters are encoded"):
        assert set(classes(tmp_path, *labels)) == set(labels)


def test_a_cell_without_a_value_is_told_where_it_becomes_a_class(tmp_path):
    with pytest.warns(UserWarning, match="'nan' counts as a class"):
        classes(tmp_path, "a", "nan", "b")


def test_a_whole_number_is_one_class_however_it_is_written(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert classes(tmp_path, "1.0", "0", "1", "2.") == ("0", "1", "2")
        assert classes(tmp_path, "1.5", "1", "0.5") == ("0.5", "1", "1.5")


def test_pictures_below_class_folders_are_told(tmp_path):
    for place in ("birds/owl", "birds", "fish"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / place / "a.png")
    with pytest.warns(UserWarning, match="1 pictures lie in folders of class folders.*'birds' for birds/owl"):
        read(Data(train=str(tmp_path)), "train", task="image_classification")


@pytest.mark.parametrize(("odd", "is_told"), [("0", True), ("PER", True), ("O", False)])
def test_a_tag_without_a_mark_among_others_is_told(tmp_path, odd, is_told):
    (tmp_path / "a.conll").write_text(f"a\tO\nb\tB-X\nc\t{odd}\n\n" * 9)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        read_sentences(Data(train=str(tmp_path / "a.conll")), "train")
    assert [f"'{odd}' are tags without the mark" in str(one.message) for one in said] == [True] * is_told


def test_a_comment_in_front_does_not_say_how_many_columns_there_are(tmp_path):
    (tmp_path / "a.conll").write_text("# id 1\r" + "a\tO\rb\tB-X\r\r" * 9)
    with pytest.raises(DataError, match=r"a.conll line 1: 3 columns, expected 2. Fix the row"):
        read_sentences(Data(train=str(tmp_path / "a.conll")), "train")


def test_a_field_that_is_too_long_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_rows, "_LARGEST_FIELD", 50)
    with pytest.raises(DataError, match="line 2: a field has more than 50 characters"):
        classes(tmp_path, "a" * 60, "b")


def test_a_test_split_without_labels_is_told_and_not_scored(tmp_path):
    task = text_task(tmp_path)
    (tmp_path / "test.csv").write_text("text\na film\n")
    task = replaced(task, data=replaced(task.data, test=str(tmp_path / "test.csv")))
    with pytest.warns(UserWarning, match="the test split has no labels, so this run does not score it"):
        plan_run(config(task))
    with pytest.warns(UserWarning, match="the test split has no labels"):
        run(task, length="1 step", output_dir=str(tmp_path / "run"))
    assert set(json.loads((tmp_path / "run/metrics.json").read_text())["final"]) == {"validation"}


def test_a_source_of_several_splits_is_read_and_told_of_once(tmp_path):
    rows = [f"text {number},{('Pos', 'neg', 'pos')[number % 3]}" for number in range(30)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows]))
    splits = Splits(Data(train=str(tmp_path / "a.csv"), validation="20%"), kind="text_classification")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sizes = [len(splits.table(name)) for name in ("validation", "train")]
    assert (sizes, len(said)) == ([6, 24], 1)
    assert splits.table("train").rows is splits.table("validation").rows
