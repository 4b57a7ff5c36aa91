"""Rows that cannot be used: left out up to a ceiling, listed in the run folder, and found before training."""

from __future__ import annotations

import json

import pytest

from finetune.data.sources import read
from finetune.errors import DataError, PreemptedError
from finetune.training import fit, plan_run
from tests.runs import config, image_task, replaced, run, text_task

FAULTS = ["one,two,three,four,five", ",positive,1", "a film,,2"]


def reports(folder):
    return {
        path.name: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.glob("bad_rows-*")
    }


def spoiled(folder, faults=FAULTS, **changes):
    """A task on texts with faulty rows in the middle of its training split."""
    task = text_task(folder)
    rows = (folder / "train-26.csv").read_text().splitlines()
    (folder / "train-26.csv").write_text("\n".join([*rows[:10], *faults, *rows[10:]]) + "\n")
    return replaced(task, data=replaced(task.data, bad_rows="skip", **changes))


@pytest.mark.filterwarnings("ignore:.*left out 3 of 29 rows")
def test_what_was_left_out_stands_in_the_run_folder(tmp_path):
    task = spoiled(tmp_path, most_bad="20%")
    result = run(task, output_dir=str(tmp_path / "run"))
    assert result.plan["num_examples"] == 26
    where = f"{tmp_path}/train-26.csv line"
    expected = [
        {"where": f"{where} 11", "reason": "5 fields, expected 3", "rows": 1},
        {"where": f"{where} 12", "reason": "text is empty", "rows": 1},
        {"where": f"{where} 13", "reason": "label ('label') is empty", "rows": 1},
    ]
    assert reports(tmp_path / "run") == {"bad_rows-train.jsonl": expected}
    held_out = replaced(task, data=replaced(task.data, validation="20%"))
    with pytest.raises(PreemptedError):
        run(held_out, output_dir=str(tmp_path / "cut"), stop_at=2)
    (tmp_path / "cut" / "bad_rows-train.jsonl").write_text("")
    run(held_out, output_dir=str(tmp_path / "cut"), existing="resume")
    assert reports(tmp_path / "cut") == {"bad_rows-train.jsonl": []}  # written once, when the run began
    run(text_task(tmp_path / "sound"), output_dir=str(tmp_path / "well"), length="2 steps")
    assert reports(tmp_path / "well") == {}


def test_the_ceiling_is_the_users(tmp_path):
    with pytest.raises(DataError, match=r"3 of 29 rows cannot be used, .* at most 10% \(task.data.most_bad\)"):
        plan_run(config(spoiled(tmp_path, most_bad="10%")))
    data = replaced(text_task(tmp_path).data, bad_rows="skip", most_bad="10.4%")
    with pytest.warns(UserWarning, match="left out 3 of 29 rows"):
        assert len(read(data, "train", task="text_classification")) == 26


def test_a_picture_that_is_broken_inside(tmp_path):
    """Its header and its end are sound: only decoding it tells."""
    task = replaced(image_task(tmp_path, per_class=8), augment="standard")
    bad = tmp_path / "images" / "train" / "red" / "000.png"
    content = bytearray(bad.read_bytes())
    content[60:-30] = bytes(len(content) - 90)
    bad.write_bytes(content)
    settings = config(task, output_dir=str(tmp_path / "run"), batch_size=4)
    assert plan_run(settings)["num_examples"] == 24
    with pytest.raises(DataError, match=f"{bad}: is broken .*task.data.bad_rows: skip, which decodes all pictures"):
        fit(**vars(settings), show="nothing")
    skipping = replaced(task, data=replaced(task.data, bad_rows="skip", most_bad="5%"))
    with pytest.warns(UserWarning, match=f"left out 1 of 24 rows .bad_rows: skip.. {bad}: is broken"):
        result = fit(**vars(config(skipping, output_dir=str(tmp_path / "run"))), existing="overwrite", show="nothing")
    assert result.plan["num_examples"] == 23
    assert [line["where"] for line in reports(tmp_path / "run")["bad_rows-train.jsonl"]] == [str(bad)]
