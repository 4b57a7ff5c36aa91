"""The data sets that are made where Python is: questions, pairs, several topics, pages, pictures of several digits."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from finetune.data import digit_sets, pydocs, pypages, pypairs, pyquestions, pytopics
from finetune.data.offline import dealt
from finetune.data.questions import read_questions
from finetune.data.sources import read
from finetune.data.spec import Data
from finetune.errors import DataError

SPLITS = ("train", "validation", "test")


def test_splits_are_disjoint_and_a_smaller_one_starts_a_larger_one():
    small, large = (dealt(range(100), name="x", unit="rows", train=n, validation=9, test=20) for n in (5, 50))
    assert [len(large[name]) for name in SPLITS] == [50, 9, 20]
    assert len(set(chain(*large.values()))) == 79
    assert large["train"][:5] == small["train"] and large["test"] == small["test"]
    with pytest.raises(DataError, match="x: .* give 100 rows, and 101 are needed.*without the sources"):
        dealt(range(100), name="x", unit="rows", train=99, validation=1, test=1)


def test_questions_have_their_answer_in_the_text_and_share_no_text_across_splits():
    splits = pyquestions.few_shot()
    texts = [set(splits[name]["context"]) for name in SPLITS]
    assert sum(map(len, texts)) == len(set().union(*texts)) == 480
    for name in SPLITS:
        for context, answers in zip(splits[name]["context"], splits[name]["answers"], strict=True):
            (text,), (start,) = answers["text"], answers["answer_start"]
            assert context[start : start + len(text)] == text
    assert len(read_questions(Data(name="pyquestions"), "test")) == len(splits["test"]["question"])


def test_questions_by_hand():
    text = "Returns the number of items. If key is missing, a new one is made. Raises KeyError if there are none."
    found = {row.question: row.answers["text"][0] for row in pyquestions._asked("count", text)}
    assert found == {
        "What does count return?": "the number of items",
        "When does count raise KeyError?": "there are none",
        "What happens if key is missing?": "a new one is made",
    }


def test_a_pair_is_a_functions_own_text_or_anothers():
    own = {
        (pypairs._head(node), pydocs.paragraph_of(node))
        for modules in pydocs.CHAPTERS.values()
        for module in modules.split()
        for node in pydocs.functions(module)
    }
    rows = pypairs.pairs()
    assert all((row.function, row.text) in own for row in rows if row.label == "own")
    others = [row for row in rows if row.label == "other"]
    assert (
        sum((row.function, row.text) in own for row in others) / len(others) < 0.01
    )  # a text may serve two functions
    assert 0.45 < len(others) / len(rows) < 0.55
    assert read(Data(name="pypairs"), "train", task="text_classification").text == ("function", "text")


def test_joined_texts_have_the_topics_of_their_parts():
    rows = [pydocs.Docstring(f"text {number}", topic, "m") for number, topic in enumerate("abcaabbcd")]
    joined = [tuple(row) for row in pytopics._joined(rows)]
    assert joined == [
        ("text 0", ("a",)),
        ("text 1 text 2", ("b", "c")),
        ("text 3", ("a",)),
        ("text 4", ("a",)),
        ("text 5", ("b",)),
        ("text 6 text 7 text 8", ("b", "c", "d")),
    ]
    table = read(Data(name="pytopics"), "train", task="text_multi_label")
    assert table.label_names == tuple(sorted(pydocs.CHAPTERS))
    assert table.labels is not None and set(table.labels.sum(1)) == {1, 2, 3}


def test_pages_are_full_and_have_all_chapters():
    assert {len(page.text.split()) for page in pypages.pages()} == {pypages.WORDS}
    assert set(pypages.few_shot()["train"]["label"]) == set(pydocs.CHAPTERS)


def test_a_picture_has_the_digits_of_its_labels_in_quarters():
    splits = digit_sets.few_shot()
    assert {name: len(split["image"]) for name, split in splits.items()} == digit_sets.SIZES
    quarters = []
    for split in splits.values():
        for image, labels in zip(split["image"], split["labels"], strict=True):
            pixels = np.asarray(image)
            assert pixels.shape == (32, 32, 3)
            parts = [part for row in np.split(pixels, 2) for part in np.split(row, 2, axis=1)]
            inked = [part.tobytes() for part in parts if part.any()]
            assert 1 <= len(labels) <= len(inked) <= digit_sets.MOST
            quarters += inked
    assert len(set(quarters)) == len(quarters)  # no digit twice
    assert read(Data(name="digit_sets"), "train", task="image_multi_label").label_names == tuple("0123456789")
