from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from finetune.data.sources import read, splits
from finetune.data.spec import Data
from finetune.errors import DataError

ROWS = [("good film", "pos"), ("bad film", "neg"), ("fine, really", "pos"), ("dull\nand long", "neg")]
CSV = 'text,label\ngood film,pos\nbad film,neg\n"fine, really",pos\n"dull\nand long",neg\n'


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def classify(split="train", **fields):
    return read(Data(**fields), split, task="text_classification")


def dataset(labels=(1, 0, 1, 0), start="row"):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["pos", "neg"])})
    texts = [f"{start} {number}" for number in range(len(labels))]
    return Dataset.from_dict({"text": texts, "label": list(labels)}, features=features)


def write(path, kind):
    if kind == "csv":
        path.write_text(CSV, newline="")
    elif kind == "csv with BOM and CRLF":
        path.write_text(CSV.replace("\n", "\r\n"), encoding="utf-8-sig", newline="")
    elif kind == "tsv":
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter="\t").writerows([("text", "label"), *ROWS])
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in ROWS))
    elif kind == "json":
        path.write_text(json.dumps([{"text": text, "label": label} for text, label in ROWS], indent=1))
    else:
        columns = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
        Dataset.from_dict(columns).to_parquet(path) if kind == "parquet" else Dataset.from_dict(columns).save_to_disk(
            path
        )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", "csv"),
        ("a.csv", "csv with BOM and CRLF"),
        ("a.tsv", "tsv"),
        ("a.jsonl", "jsonl"),
        ("a.json", "json"),
        ("a.parquet", "parquet"),
        ("saved", "saved"),
    ],
)
def test_every_kind_of_file_gives_the_same_table(tmp_path, name, kind):
    write(tmp_path / name, kind)
    table = classify(train=name)
    assert [text.replace("\r", "") for (text,) in table.texts()] == [text for text, _ in ROWS]
    assert table.label_names == ("neg", "pos")
    assert table.labels.tolist() == [1, 0, 1, 0] and table.labels.dtype == np.int64
    assert table.where(1).startswith(f"{name} ")


def test_a_line_number_counts_lines_and_not_rows(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"two\nlines",a\nshort,b\n\nlast,a\n')
    table = classify(train="a.csv")
    assert [table.where(index) for index in range(3)] == ["a.csv line 2", "a.csv line 4", "a.csv line 6"]


def test_objects_of_datasets_keep_the_order_of_their_classes(tmp_path):
    data = {"train": dataset(), "validation": dataset((0, 0, 0, 1), "other")}
    table = classify("validation", **data)
    assert table.label_names == ("pos", "neg") and table.labels.tolist() == [0, 0, 0, 1]
    dataset().to_parquet(tmp_path / "a.parquet")
    assert classify(train="a.parquet").label_names == ("pos", "neg")


def test_whole_numbers_are_ordered_by_value(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,10\nb,9\nc,2\n")
    assert classify(train="a.csv").label_names == ("2", "9", "10")


def test_the_classes_of_train_hold_for_the_other_splits(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,y\nc,z\n")
    (tmp_path / "b.csv").write_text("text,label\nd,z\ne,z\n")
    assert classify("validation", train="a.csv", validation="b.csv").labels.tolist() == [2, 2]
    given = read(Data(validation="b.csv"), "validation", task="text_classification", label_names=("z", "x"))
    assert given.labels.tolist() == [0, 0] and given.label_names == ("z", "x")


def test_a_class_that_train_lacks_is_an_error_with_its_row(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,y\n")
    (tmp_path / "b.csv").write_text("text,label\nd,x\ne,w\n")
    with pytest.raises(DataError, match="b.csv line 3: label 'w'"):
        classify("validation", train="a.csv", validation="b.csv")


def test_a_test_split_may_have_no_labels(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,y\n")
    (tmp_path / "b.csv").write_text("text\nd\ne\n")
    assert classify("test", train="a.csv", test="b.csv").labels is None
    assert classify("test", train=dataset(), test=dataset((-1, -1, -1, -1), "other")).labels is None
    with pytest.raises(DataError, match="which column holds the label"):
        classify("validation", train="a.csv", validation="b.csv")
    with pytest.raises(DataError, match=r"label \('label'\) is empty"):
        classify("validation", train=dataset(), validation=dataset((-1, -1, -1, -1), "other"))


def test_pairs_of_texts_and_other_columns(tmp_path):
    (tmp_path / "a.csv").write_text("premise,hypothesis,label,length\np q,h,x,3\nr,s,y,1e1\n")
    table = classify(train="a.csv", text=("premise", "hypothesis"))
    assert table.texts() == [("p q", "h"), ("r", "s")]
    assert table.column("length").tolist() == [3.0, 10.0]
    assert table.column("premise").tolist() == ["p q", "r"]
    with pytest.raises(DataError, match="did you mean 'length'.*'premise', 'hypothesis', 'label', 'length'"):
        table.column("lenght")


def test_targets(tmp_path):
    (tmp_path / "a.csv").write_text("text,score\na,1.5\nb,-2\n")
    table = read(Data(train="a.csv"), "train", task="text_regression")
    assert table.labels.dtype == np.float32 and table.labels.tolist() == [1.5, -2.0] and table.label_names is None


@pytest.mark.parametrize(
    ("header", "text", "label"),
    [
        ("text,label", "text", "label"),
        ("Review,Stars,id", "Review", "Stars"),
        ("id,words,label", "words", "label"),
        ("text,group", "text", "group"),
        ("words,kind", None, None),
        ("text,content,label", None, None),
        ("text,label,category", None, None),
        ("premise,hypothesis,label", None, None),
    ],
)
def test_columns_are_found_only_where_one_can_be_meant(tmp_path, header, text, label):
    names = header.split(",")
    rows = [[str(number) if name in ("id", "Stars") else f"{name} {number}" for name in names] for number in (1, 2)]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    if text is None:
        with pytest.raises(DataError, match=r"which column holds the .*Set task\.data\."):
            classify(train="a.csv")
        return
    table = classify(train="a.csv")
    assert table.text == (text,)
    assert table.label_names == tuple(row[names.index(label)] for row in rows)


def test_a_missing_column_lists_those_there_are(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,y\n")
    with pytest.raises(DataError, match=r"no column 'lable' \(did you mean 'label'\?\); it has 'text', 'label'"):
        classify(train="a.csv", label="lable")
    (tmp_path / "b.csv").write_text("text;label\na;x\nb;y\n")
    with pytest.raises(DataError, match="separated by semicolons"):
        classify(train="b.csv", text="text")
    with pytest.raises(DataError, match="no effect on a task of texts"):
        classify(train="a.csv", image="text")


def test_what_cannot_be_opened_says_so(tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04")
    DatasetDict(train=dataset()).save_to_disk(tmp_path / "several")
    for source, words in [
        ("b.csv", "no file or folder 'b.csv'.*did you mean 'a.csv'"),
        ("owner/name", "task.data=owner/name"),
        ("a.xlsx", "kind '.xlsx' cannot be read"),
        ("several", "holds splits.*several/train"),
    ]:
        with pytest.raises(DataError, match=words):
            classify(train=source)
    assert len(classify(train="several/train")) == 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sst", "no data set is called 'sst'.*did you mean 'sst2'"),
        ("reviews.csv", "is a file, not a name"),
        ("digits", "is a data set of images"),
    ],
)
def test_names_that_are_no_data_set_for_the_task(name, words):
    with pytest.raises(DataError, match=words):
        classify(name=name)


def test_a_path_for_a_name_says_what_to_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "set").mkdir(parents=True)
    (tmp_path / "table").write_text("text,label\n")
    for name, kind in (("own", "folder"), ("./own", "folder"), ("own/set", "folder"), ("table", "file")):
        for given in (name, f"{name}:x"):
            with pytest.raises(DataError, match=f"'{name}' is a {kind}, not a name. Write task.data.train={name}.$"):
                classify(name=given)


def test_a_hub_data_set_without_a_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    write(tmp_path / "train", "saved")  # a folder that the split of that name does not mean
    with pytest.raises(DataError, match="no-such/data:set: the Hub cannot be reached.*task.data=pydocs"):
        classify(name="no-such/data:set", train="train")


def test_a_hub_data_set_is_read_by_the_columns_of_its_preset(monkeypatch):
    def load_dataset(identifier, config, *, revision):  # what the Hub would give
        assert (identifier, config, revision) == ("nyu-mll/glue", "mrpc", "v1")
        rows = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": ["yes", "no"], "topic": ["x", "x"]}
        return DatasetDict(train=Dataset.from_dict(rows))

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    table = classify(name="mrpc", revision="v1")
    assert table.texts() == [("a", "c"), ("b", "d")] and table.label_names == ("no", "yes")
    assert table.where(1) == "nyu-mll/glue:mrpc train row 2"
    assert splits(Data(name="nyu-mll/glue:mrpc", revision="v1"), task="text_classification") == ("train",)
    with pytest.raises(DataError, match="has no split 'dev'; it has 'train'"):
        classify("validation", name="mrpc", revision="v1", validation="dev")


def test_presets_know_their_splits():
    assert splits(Data(name="sst2"), task="text_classification") == ("train", "validation")
    assert splits(Data(name="cifar10"), task="image_classification") == ("train", "validation", "test")
    assert splits(Data(train="a.csv", test="10%"), task="text_classification") == ("train", "test")
    with pytest.raises(DataError, match="no test split; it has 'train', 'validation'"):
        classify("test", name="sst2")


def test_offline_presets_can_be_read():
    table = read(Data(name="digits"), "test", task="image_classification")
    train = read(Data(name="digits", validation="20%"), "train", task="image_classification")
    assert table.label_names == tuple("0123456789") == train.label_names
    assert table.image(0).mode == "RGB" and table.where(0) == "digits test row 1"


def test_the_fingerprint_follows_the_content(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nab,x\nc,y\n")
    (tmp_path / "b.csv").write_text("text,label\r\nab,x\r\nc,y\r\n")
    (tmp_path / "c.csv").write_text("text,label\na,x\nbc,y\n")
    (tmp_path / "d.csv").write_text("text,label\nab,y\nc,x\n")
    first, same, moved, relabelled = (classify(train=f"{name}.csv").fingerprint for name in "abcd")
    assert first == same and len({first, moved, relabelled}) == 3
