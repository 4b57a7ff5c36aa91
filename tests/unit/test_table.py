from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from finetune.data.rows import Rows
from finetune.data.table import Table

COUNT = 5000
TEXTS = [f"text {number}" for number in range(COUNT)]
OTHERS = [f"other {number}" for number in range(COUNT)]


class Recording(Sequence):
    """A column that loads when it is sliced, as those of ``datasets`` do, and notes how much at a time."""

    def __init__(self, values: list[str]) -> None:
        self.values = values
        self.largest = self.loaded = 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key):
        found = self.values[key]
        self.largest, self.loaded = max(self.largest, len(found)), self.loaded + len(found)
        return found


POSITIONS = {
    "all": np.arange(COUNT),
    "with holes": np.delete(np.arange(COUNT), [0, 7, 1000, 4999]),
    "a share": np.arange(3, COUNT, 10),
    "shuffled": np.random.default_rng(0).permutation(COUNT),
    "one": np.array([17]),
    "none": np.zeros(0, np.int64),
}


@pytest.mark.parametrize("columns", [1, 2], ids=["single", "pair"])
@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS.keys())
def test_chunks_are_the_texts_in_their_order(positions, columns):
    named = {"a": Recording(TEXTS), "b": Recording(OTHERS)}
    table = Table(Rows("x.csv", named), positions, text=tuple(named)[:columns])
    expected = [(TEXTS[at], OTHERS[at])[:columns] for at in positions]
    chunks = list(table.text_chunks(100))
    assert [text for chunk in chunks for text in chunk] == expected == table.texts() == list(table.contents)
    assert all(0 < len(chunk) <= 100 for chunk in chunks)


def test_few_texts_are_loaded_at_a_time():
    for name, most in {"all": 100, "with holes": 101, "a share": 991}.items():
        column = Recording(TEXTS)
        for _ in Table(Rows("x.csv", {"a": column}), POSITIONS[name], text=("a",)).text_chunks(100):
            pass
        assert column.largest <= most and column.loaded <= COUNT, name


def test_a_fingerprint_is_of_what_is_learnt_from():
    def of(positions, labels=None, text=("a",)) -> str:
        rows = Rows("x.csv", {"a": TEXTS, "b": OTHERS})
        return Table(rows, np.asarray(positions), text=text, labels=labels, label_names=("n", "y")).fingerprint

    labels = np.array([0, 1, 1])
    several = [of([0, 1, 2]), of([0, 2, 1]), of([0, 1]), of([0, 1, 2], labels), of([0, 1, 2], labels[::-1].copy())]
    several += [of([0, 1, 2], text=("b",)), of([0, 1, 2], text=("a", "b")), of([0, 1, 2], labels.astype(np.float32))]
    assert len(set(several)) == len(several) and of([0, 1, 2]) == several[0]
    # Recorded in the checkpoints of runs that somebody may resume.
    assert several[3] == "44205b4fcb09113020cca51b7335da14"
