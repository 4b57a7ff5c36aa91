from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from finetune.data.spec import Data


def test_yaml_values_become_data_and_go_back_to_json():
    adapter = TypeAdapter(Data)
    data = adapter.validate_python({"train": "a.csv", "validation": "10%", "text": ["premise", "hypothesis"]})
    assert data == Data(train="a.csv", validation="10%", text=("premise", "hypothesis"))
    assert adapter.validate_json(adapter.dump_json(data)) == data
    assert data.shares == {"validation": 0.1}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "no data"),
        ({"train": "10%"}, "only validation and test"),
        ({"train": "a.csv", "validation": 10}, "neither a path nor a share"),
        ({"train": "a.csv", "validation": "0%"}, "not a share"),
        ({"train": "a.csv", "validation": "120%"}, "not a share"),
        ({"train": "a.csv", "validation": "60%", "test": "40%"}, "nothing to train on"),
        ({"validation": "10%"}, "there is no train"),
        ({"train": ["a.csv", "b.csv"]}, "one file or folder"),
        ({"train": "a.csv", "bad_rows": "drop"}, "bad_rows"),
        ({"train": "a.csv", "bad_rows": "skip", "most_bad": "100%"}, "most_bad: '100%' is not a share"),
        ({"train": "a.csv", "bad_rows": "skip", "most_bad": "3 rows"}, "most_bad: '3 rows' is not a share"),
        ({"train": "a.csv", "most_bad": "2%"}, "most_bad: without effect"),
        ({"train": "a.csv", "revision": "main"}, "revision belongs"),
        ({"train": " "}, "empty path"),
        ({"train": object()}, "cannot be read"),
        ({"train": "a.csv", "labels": "x"}, "labels"),
    ],
)
def test_contradictions_are_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(Data).validate_python(fields)
