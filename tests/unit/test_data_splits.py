from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from finetune.data.sources import read
from finetune.data.spec import Data
from finetune.errors import DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path):
    rows = [f"text {number},{'rare' if number % 20 == 0 else 'ab'[number % 2]}" for number in range(200)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["text,label", *rows]))
    return path


def parts(data):
    return {split: read(data, split, task="text_classification") for split in ("train", "validation", "test")}


def test_every_row_is_in_exactly_one_part_and_every_class_in_each(file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tables = parts(Data(train=str(file), validation="10%", test="20%"))
    texts = [text for table in tables.values() for (text,) in table.texts()]
    assert sorted(texts) == sorted(f"text {number}" for number in range(200))
    assert {split: len(table) for split, table in tables.items()} == {"train": 140, "validation": 20, "test": 40}
    # 90 of a (100 less 10 rare), 100 of b, 10 rare
    assert np.bincount(tables["validation"].labels).tolist() == [9, 10, 1]
    assert np.bincount(tables["test"].labels).tolist() == [18, 20, 2]


def test_another_process_holds_out_the_same_rows(file):
    data = Data(train=str(file), validation="10%")
    script = (
        "from finetune.data.sources import read; from finetune.data.spec import Data\n"
        f"data = Data(train={str(file)!r}, validation='10%')\n"
        "print(read(data, 'validation', task='text_classification').fingerprint)"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ["PYTHONPATH"])),
        "PYTHONHASHSEED": "7",
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == read(data, "validation", task="text_classification").fingerprint


def test_equal_texts_stay_together(tmp_path):
    rows = [f"text {number % 50},{'ab'[number % 2]}" for number in range(200)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows]))
    tables = parts(Data(train=str(tmp_path / "a.csv"), validation="20%", test="20%"))
    seen = [set(table.texts()) for table in tables.values()]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    assert sum(map(len, tables.values())) == 200 and len(tables["validation"]) == 40


def test_a_class_of_one_stays_in_train_and_a_share_of_nothing_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,y\n")
    with pytest.raises(DataError, match="validation: 90% of the 2 rows .* leaves no row"):
        read(Data(train=str(tmp_path / "a.csv"), validation="90%"), "train", task="text_classification")


def test_targets_are_held_out_too(tmp_path):
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *[f"text {n},{n / 3:.2f}" for n in range(40)]]))
    data = Data(train=str(tmp_path / "a.csv"), validation="25%")
    table = read(data, "validation", task="text_regression")
    assert len(table) == 10 and table.labels.dtype == np.float32
    assert table.labels == pytest.approx([int(text.split()[1]) / 3 for (text,) in table.texts()], abs=0.01)
