from __future__ import annotations

import os
import subprocess
import sys

import pytest

from finetune.data import pydocs
from finetune.data.pydocs import CHAPTERS, docstrings, few_shot, fingerprint
from finetune.errors import DataError


def test_texts_are_unique_short_paragraphs_with_one_topic_each():
    rows = docstrings()
    texts = [row.text for row in rows]
    assert len(set(texts)) == len(texts) > 3000
    assert all(5 <= len(text.split()) <= 60 for text in texts)
    assert not any("\n" in text or ">>>" in text for text in texts)
    assert {row.topic for row in rows} == set(CHAPTERS)


def test_a_known_docstring_has_its_chapter():
    topics = {row.text: (row.topic, row.module) for row in docstrings()}
    assert topics["Shuffle list x in place, and return None."] == ("numbers", "random")


def test_what_two_chapters_say_is_in_neither():
    assert "Put an item into the queue." not in {row.text for row in docstrings()}  # queue and asyncio


def test_every_chapter_has_texts_for_the_default_split():
    for topic in CHAPTERS:
        assert sum(row.topic == topic for row in docstrings()) >= 150


def test_no_module_stands_in_two_chapters():
    modules = " ".join(CHAPTERS.values()).split()
    assert len(set(modules)) == len(modules)


def test_rows_do_not_depend_on_optimisation_or_hash_seed_and_import_nothing_of_theirs():
    script = (
        "import sys; from finetune.data.pydocs import fingerprint; print(fingerprint());"
        " assert not {'mailbox', 'imaplib', 'modulefinder'} & set(sys.modules)"
    )
    command = [sys.executable, "-OO", "-c", script]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": "7"}
    )
    assert answer.stdout.strip() == fingerprint()


def test_splits_are_balanced_and_disjoint():
    splits = few_shot(per_class=16, validation_per_class=20, test_per_class=50)
    assert list(splits) == ["train", "validation", "test"]
    for (name, split), size in zip(splits.items(), (16, 20, 50), strict=True):
        assert len(split["text"]) == len(split["label"]) == size * len(CHAPTERS), name
        assert all(split["label"].count(topic) == size for topic in CHAPTERS), name
    texts = [text for split in splits.values() for text in split["text"]]
    assert len(set(texts)) == len(texts)


def test_labels_belong_to_their_texts():
    topics = {row.text: row.topic for row in docstrings()}
    for split in few_shot().values():
        assert [topics[text] for text in split["text"]] == split["label"]


def test_held_out_texts_do_not_move_with_the_size_of_the_training_split():
    small, large = few_shot(per_class=8), few_shot(per_class=32)
    assert small["test"] == large["test"]
    assert small["validation"] == large["validation"]
    assert set(small["train"]["text"]) < set(large["train"]["text"])


def test_a_seed_is_a_split():
    assert few_shot(seed=1) == few_shot(seed=1)
    assert few_shot(seed=1)["train"] != few_shot(seed=2)["train"]


def test_too_few_texts_name_the_topic_and_what_to_do():
    with pytest.raises(DataError, match=r"topic 'numbers' has \d+ texts and 100070 are needed.*task\.data="):
        few_shot(per_class=100_000)


def test_a_python_without_its_sources_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setattr(pydocs.sysconfig, "get_path", lambda name: str(tmp_path))
    docstrings.cache_clear()
    try:
        with pytest.raises(DataError, match="has 0 texts.*came without the sources"):
            few_shot()
    finally:
        docstrings.cache_clear()
