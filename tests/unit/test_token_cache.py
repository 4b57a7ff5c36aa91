from __future__ import annotations

import multiprocessing
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune import TextClassification
from finetune.cached_arrays import ArrayCache
from finetune.data.rows import Rows
from finetune.data.store import Draws
from finetune.data.table import Table
from finetune.data.text_store import TextStore
from finetune.tasks.text import KeepsTokens
from tests.tiny_data import examples, write_texts
from tests.tiny_models import save_text_folder, tokenizer

TEXTS = [text for text, _, _ in examples(2000)]
OTHERS = TEXTS[7:] + TEXTS[:7]
NAMES = ["input_ids", "token_type_ids", "attention_mask"]
DRAWS = Draws(np.array([3, 1999, 0, 3, 512]))


def table(*columns: list[str], flipped: int = 0, name: str = "text") -> Table:
    labels = np.arange(len(columns[0])) % 2
    labels[:flipped] ^= 1
    named = {f"{name}{number}": column for number, column in enumerate(columns)}
    rows = Rows("train.csv", named)
    return Table(rows, np.arange(len(rows)), text=tuple(named), labels=labels, label_names=("n", "y"))


def stored(cache: ArrayCache | None, data: Table, max_length: int = 32, **settings) -> TextStore:
    made = tokenizer()
    made.model_input_names = NAMES
    for name, value in settings.items():
        setattr(made, name, value)
    return TextStore.tokenised(data, tokenizer=made, max_length=max_length, cache=cache)


def same(one: TextStore, other: TextStore) -> bool:
    first, second = one.batch(DRAWS), other.batch(DRAWS)
    arrays = [(one.ids, other.ids), (one.offsets, other.offsets), (one.lengths, other.lengths)]
    return (
        first.keys() == second.keys()
        and all(torch.equal(first[name], second[name]) for name in first)
        and all(np.array_equal(*pair) and pair[0].dtype == pair[1].dtype for pair in arrays)
        and np.array_equal(one.types, other.types)
    )


@pytest.fixture
def cache(tmp_path) -> ArrayCache:
    return ArrayCache(tmp_path / "cache", max_bytes=10**8)


def entries(cache: ArrayCache) -> list[Path]:
    return sorted((cache.folder / "entries").iterdir())


@pytest.mark.parametrize("columns", [(TEXTS,), (TEXTS, OTHERS)], ids=["single", "pair"])
def test_tokens_are_kept_and_found_again(cache, columns):
    plain = stored(None, table(*columns))
    cold, warm = stored(cache, table(*columns)), stored(cache, table(*columns))
    assert (plain.kept, cold.kept) == ("off", f"written to {cache.folder}")
    assert warm.kept == f"read from {cache.folder}"
    for store in (cold, warm):
        assert same(store, plain)
        assert isinstance(store.ids.base, np.memmap) and not store.ids.flags.writeable
        assert type(store.ids) is np.ndarray  # a memmap's own indexing is slower
    (entry,) = entries(cache)
    assert (entry / "types.bin").exists() == (len(columns) == 2)


def test_the_tokenizer_is_not_asked_again(cache, monkeypatch):
    stored(cache, table(TEXTS))
    monkeypatch.setattr("finetune.data.text_store.tokenised", None)
    assert len(stored(cache, table(TEXTS))) == 2000


CHANGES = {
    "one text": lambda cache: stored(cache, table([*TEXTS[:-1], "good"])),
    "order": lambda cache: stored(cache, table(TEXTS[::-1])),
    "fewer rows": lambda cache: stored(cache, table(TEXTS).subset(np.arange(1, 2000)).subset(np.arange(1999))),
    "one label": lambda cache: stored(cache, table(TEXTS, flipped=1)),
    "another column": lambda cache: stored(cache, table(TEXTS, name="title")),
    "a pair": lambda cache: stored(cache, table(TEXTS, OTHERS)),
    "max_length": lambda cache: stored(cache, table(TEXTS), max_length=31),
    "truncation side": lambda cache: stored(cache, table(TEXTS), truncation_side="left"),
    "special tokens": lambda cache: stored(cache, table(TEXTS), split_special_tokens=True),
    "segments": lambda cache: stored(cache, table(TEXTS), model_input_names=NAMES[:1]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_was_made_from_anything_else_is_not_taken(cache, change, monkeypatch):
    monkeypatch.setattr("finetune.data.text_store._SMALLEST", 1999)
    stored(cache, table(TEXTS))
    before = entries(cache)
    made = change(cache)
    assert made.kept.startswith("written") and len(entries(cache)) == len(before) + 1


def test_another_vocabulary_is_another_entry(cache):
    grown = tokenizer()
    grown.add_tokens(["good film"])
    for made in (tokenizer(), grown):
        assert TextStore.tokenised(table(TEXTS), tokenizer=made, max_length=32, cache=cache).kept.startswith("written")


def test_a_small_split_is_not_kept(cache):
    assert stored(cache, table(TEXTS[:1999])).kept == "not kept: 1999 texts, fewer than 2000"
    assert not cache.folder.exists()


def test_a_tokenizer_that_cannot_be_named_is_not_kept(cache):
    from transformers import ByT5Tokenizer

    made = TextStore.tokenised(table(TEXTS), tokenizer=ByT5Tokenizer(), max_length=32, cache=cache)
    assert made.kept.startswith("not kept: this tokenizer") and not cache.folder.exists()


def test_a_damaged_entry_is_made_again(cache):
    plain = stored(None, table(TEXTS))
    stored(cache, table(TEXTS))
    (entry,) = entries(cache)
    os.truncate(entry / "ids.bin", 1000)
    with pytest.warns(UserWarning, match="damaged"):
        again = stored(cache, table(TEXTS))
    assert again.kept.startswith("written") and same(again, plain)
    with warnings.catch_warnings(action="error"):
        assert stored(cache, table(TEXTS)).kept.startswith("read")


@pytest.mark.parametrize("fault", ["unwritable", "too small"])
def test_where_nothing_can_be_kept_the_run_goes_on(tmp_path, fault):
    (tmp_path / "file").touch()
    places = {"unwritable": (tmp_path / "file", 10**8), "too small": (tmp_path / "cache", 1000)}
    folder, size = places[fault]
    with pytest.warns(UserWarning, match="tokens are not kept for the next run: ") as told:
        made = stored(ArrayCache(folder, max_bytes=size), table(TEXTS))
    assert len(told) == 1
    reason = {"unwritable": "cannot be written", "too small": "the budget is 0.00 MB"}[fault]
    assert made.kept.startswith("not kept: ") and reason in made.kept
    assert same(made, stored(None, table(TEXTS)))


def _read(store: TextStore, results) -> None:
    batch = store.batch(DRAWS)
    maps = Path("/proc/self/maps").read_text()
    results.put((batch["input_ids"].tolist(), maps.count("/ids.bin")))


def test_a_forked_process_reads_the_same_pages(cache):
    store = stored(cache, table(TEXTS))
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=_read, args=(store, results))
    child.start()
    ids, maps = results.get()
    child.join()
    assert ids == store.batch(DRAWS)["input_ids"].tolist() and maps >= 1


def test_a_task_keeps_the_splits_it_loads(tmp_path, cache):
    model = str(save_text_folder(tmp_path / "model"))
    data = {"train": str(write_texts(tmp_path / "train.csv", 2400)), "validation": "10%"}

    def loaded(keep: ArrayCache | None, **options) -> TextStore:
        task = TextClassification(model=model, data=data, **options)
        assert isinstance(task, KeepsTokens)
        task.keep_tokens_in(keep)
        assert task.load_split("validation").kept == (
            "off" if keep is None else "not kept: 240 texts, fewer than 2000"
        )
        assert task.load_split("train") is task.load_split("train")
        return task.load_split("train")

    plain, cold, warm = (loaded(keep, max_length=32) for keep in (None, cache, cache))
    assert [store.kept.split()[0] for store in (plain, cold, warm)] == ["off", "written", "read"]
    assert same(cold, plain) and same(warm, plain)
    assert loaded(cache, max_length=16).kept.startswith("written")
