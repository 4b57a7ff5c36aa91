from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from finetune.cached_arrays import ArrayCache, CacheUnavailable, folder_of, open_draft

KEY = "0123456789abcdef"
SHAPES = {"ids": ((5, 3), np.dtype(np.int32)), "means": ((7,), np.dtype(np.float32))}
MB = 10**6


def filled(cache: ArrayCache, key: str = KEY, shapes=SHAPES, seed: int = 0) -> dict[str, np.ndarray]:
    """An entry of random bytes; what it holds, as ordinary arrays."""
    rng = np.random.default_rng(seed)
    draft = cache.create(key, shapes)
    for array in draft.arrays.values():
        array[...] = rng.integers(0, 100, array.shape)
    return {name: np.array(array) for name, array in draft.commit().items()}


def kilobytes(count: int) -> dict:
    return {"x": ((count * 1000,), np.dtype(np.uint8))}


@pytest.fixture
def cache(tmp_path) -> ArrayCache:
    return ArrayCache(tmp_path / "cache", max_bytes=MB)


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(
        np.array_equal(found[name], expected[name]) and found[name].dtype == expected[name].dtype for name in expected
    )


def test_an_entry_is_found_again(cache):
    assert cache.find(KEY) is None
    expected = filled(cache)
    found = ArrayCache(cache.folder, max_bytes=MB).find(KEY)
    assert same(found, expected)
    assert all(isinstance(array, np.memmap) and not array.flags.writeable for array in found.values())
    assert cache.find("another") is None


def test_a_draft_is_no_entry_until_it_is_committed(cache):
    draft = cache.create(KEY, SHAPES)
    assert cache.find(KEY) is None and all(array.flags.writeable for array in draft.arrays.values())
    draft.discard()
    draft.discard()
    assert cache.find(KEY) is None and not list((cache.folder / "drafts").iterdir())
    other = cache.create(KEY, SHAPES)
    draft.discard()  # must not touch the lock of the other, which has the same file descriptor
    assert other.folder.is_dir()
    other.commit()
    assert cache.find(KEY) is not None and not list((cache.folder / "drafts").iterdir())


@pytest.mark.parametrize("shape", [(0,), (0, 4), (), (1,)])
def test_odd_shapes(cache, shape):
    draft = cache.create(KEY, {"x": (shape, np.int64)})
    draft.arrays["x"][...] = 3
    assert draft.commit()["x"].shape == shape
    found = cache.find(KEY)["x"]
    assert found.shape == shape and found.dtype == np.int64 and (found == 3).all()


FILES = ("ids.bin", "means.bin", "manifest.json")


def _cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def _flip(path: Path, at: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


DAMAGES = {
    "empty": lambda path: _cut(path, 0),
    "half": lambda path: _cut(path, path.stat().st_size // 2),
    "a byte less": lambda path: _cut(path, path.stat().st_size - 1),
    "a byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "deleted": lambda path: path.unlink(),
    "a link": lambda path: (path.rename(path.with_suffix(".moved")), path.symlink_to("/dev/zero")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "not text": lambda path: path.write_bytes(b"\xff\xfe\x00" * 20),
    "of a list": lambda path: path.write_bytes(b"[]"),
}


def assert_rebuilt(cache: ArrayCache) -> None:
    with pytest.warns(UserWarning, match=f"{KEY} is damaged .*was removed") as told:
        assert cache.find(KEY) is None
    assert len(told) == 1
    with warnings.catch_warnings(action="error"):
        assert cache.find(KEY) is None
        expected = filled(cache)
        assert same(cache.find(KEY), expected)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_is_never_used(cache, damage, file):
    filled(cache)
    path = cache.folder / "entries" / KEY / file
    damage(path)
    assert_rebuilt(cache)


@pytest.mark.parametrize("file", FILES)
def test_one_flipped_bit(cache, file):
    rng = np.random.default_rng(0)
    filled(cache)
    size = (cache.folder / "entries" / KEY / file).stat().st_size
    for at, bit in zip(rng.integers(0, size, 25), rng.integers(0, 8, 25), strict=True):
        _flip(cache.folder / "entries" / KEY / file, int(at), int(bit))
        assert_rebuilt(cache)


def test_an_entry_of_another_key_or_format_is_not_taken(cache):
    filled(cache)
    (cache.folder / "entries" / KEY).rename(cache.folder / "entries" / "other")
    with pytest.warns(UserWarning, match="of another entry"):
        assert cache.find("other") is None


def test_a_damaged_entry_that_cannot_be_removed_is_not_used_either(cache, monkeypatch):
    filled(cache)
    _flip(cache.folder / "entries" / KEY / "ids.bin", 0, 0)
    (cache.folder / "drafts").rmdir()
    (cache.folder / "drafts").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="is damaged .*is not used"):
        assert cache.find(KEY) is None


def test_of_two_at_once_the_first_wins_and_both_go_on(cache):
    first, second = cache.create(KEY, SHAPES), cache.create(KEY, SHAPES)
    for value, draft in enumerate((first, second)):
        for array in draft.arrays.values():
            array[...] = value
    kept, taken = first.commit(), second.commit()
    assert (kept["ids"] == 0).all() and same(taken, kept)
    assert os.listdir(cache.folder / "drafts") == []


def test_of_two_at_once_a_damaged_first_is_replaced(cache):
    second = cache.create(KEY, SHAPES)
    filled(cache)
    _flip(cache.folder / "entries" / KEY / "ids.bin", 3, 3)
    for array in second.arrays.values():
        array[...] = 5
    with pytest.warns(UserWarning, match="is damaged"):
        assert (second.commit()["ids"] == 5).all()
    assert (cache.find(KEY)["ids"] == 5).all()


RACE = """
import sys, time, numpy as np
from pathlib import Path
from finetune.cached_arrays import ArrayCache
cache = ArrayCache(Path(sys.argv[1]), max_bytes=10**8)
while time.time() < float(sys.argv[2]): pass
for key in range(20):
    found = cache.find(f"k{key}")
    if found is None:
        draft = cache.create(f"k{key}", {"x": ((50_000,), np.int64)})
        draft.arrays["x"][...] = key
        found = draft.commit()
    assert (found["x"] == key).all() and len(found["x"]) == 50_000
"""


def test_processes_that_race_all_end_well(tmp_path):
    start = str(time.time() + 1.5)
    command = [sys.executable, "-W", "error", "-c", RACE, str(tmp_path), start]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in started:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    cache = ArrayCache(tmp_path, max_bytes=10**8)
    assert all(cache.find(f"k{key}") is not None for key in range(20))
    assert os.listdir(tmp_path / "drafts") == []


DIES = """
import os, signal, sys, numpy as np
from pathlib import Path
from finetune.cached_arrays import ArrayCache
draft = ArrayCache(Path(sys.argv[1]), max_bytes=10**8).create("k", {"x": ((1000,), np.int64)})
if len(sys.argv) > 2 and os.fork() == 0:
    print(os.getpid(), flush=True)
    signal.pause()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("with_child", [False, True], ids=["alone", "with a forked child that lives on"])
def test_the_draft_of_a_dead_process_is_removed(cache, with_child):
    command = [sys.executable, "-c", DIES, str(cache.folder), *(["fork"] if with_child else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process.wait(timeout=60)
    child = int(process.stdout.readline()) if with_child else None
    try:
        mine = cache.create("other", SHAPES)
        assert {path.name for path in (cache.folder / "drafts").iterdir()} == {
            mine.folder.name,
            f"{mine.folder.name}.lock",
        }
        cache.create("third", SHAPES).discard()
        assert mine.folder.is_dir(), "a draft of a live process must stay"
    finally:
        process.stdout.close()
        if child:
            os.kill(child, signal.SIGKILL)


def test_another_process_writes_into_a_draft(cache):
    draft = cache.create(KEY, SHAPES)
    draft.arrays["means"][...] = 0
    script = (
        "import sys, numpy as np; from pathlib import Path; from finetune.cached_arrays import open_draft\n"
        "open_draft(Path(sys.argv[1]), {'means': ((7,), np.float32)})['means'][3:] = 2"
    )
    subprocess.run([sys.executable, "-c", script, str(draft.folder)], check=True)
    assert draft.arrays["means"].tolist() == [0, 0, 0, 2, 2, 2, 2]
    draft.commit()
    assert cache.find(KEY)["means"].tolist() == [0, 0, 0, 2, 2, 2, 2]


def test_a_draft_of_another_shape_is_not_opened(cache):
    draft = cache.create(KEY, SHAPES)
    with pytest.raises(AssertionError, match="means.*28 bytes"):
        open_draft(draft.folder, {"means": ((8,), np.dtype(np.float32))})
    draft.discard()


def test_what_was_not_used_for_longest_makes_room(cache):
    for number in range(3):
        filled(cache, f"k{number}", kilobytes(300))
        os.utime(cache.folder / "entries" / f"k{number}" / "manifest.json", (number, number))
    assert cache.find("k0") is not None  # used now, so k1 is the oldest
    filled(cache, "k3", kilobytes(300))
    assert [cache.find(f"k{number}") is not None for number in range(4)] == [True, False, True, True]


def test_what_this_process_reads_does_not_make_room(cache):
    filled(cache, "a", kilobytes(600))
    view = np.asarray(cache.find("a")["x"])[5:10]
    assert cache.find("a") is not None  # and let go at once
    with pytest.raises(CacheUnavailable, match="0.60 MB are needed, .* takes 0.60 MB already, and the budget is 1.00"):
        cache.create("b", kilobytes(600))
    del view
    cache.create("b", kilobytes(600)).discard()


def test_an_entry_that_another_has_mapped_stays_readable(cache):
    filled(cache, "a", kilobytes(600), seed=1)
    script = (
        "import sys, zlib; from pathlib import Path; from finetune.cached_arrays import ArrayCache\n"
        "found = ArrayCache(Path(sys.argv[1]), max_bytes=10**6).find('a')['x']\n"
        "print('mapped', flush=True); sys.stdin.readline(); print(int(found.astype(int).sum()))"
    )
    expected = int(cache.find("a")["x"].astype(int).sum())
    command = [sys.executable, "-c", script, str(cache.folder)]
    reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdout.readline() == "mapped\n"
    filled(cache, "b", kilobytes(600))
    assert cache.find("a") is None
    assert int(reader.communicate("\n", timeout=60)[0]) == expected


def test_an_entry_larger_than_the_budget(cache):
    filled(cache, "small", kilobytes(1))
    with pytest.raises(CacheUnavailable, match="one entry takes 2.00 MB, and the budget is 1.00 MB"):
        cache.create(KEY, kilobytes(2000))
    assert cache.find("small") is not None, "nothing is removed for what can never fit"


def test_a_disk_that_is_too_small(tmp_path):
    cache = ArrayCache(tmp_path, max_bytes=2**60)
    with pytest.raises(
        CacheUnavailable, match="the disk of the cache folder .* GB left, and 1000000.00 GB are needed"
    ):
        cache.create(KEY, {"x": ((10**15,), np.dtype(np.uint8))})
    assert os.listdir(tmp_path / "drafts") == []


def test_a_disk_that_fills_up_while_it_is_written(cache):
    """A limit on the size of a file stands for the full disk: the same call fails, with its own number."""
    filled(cache, "small", kilobytes(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(CacheUnavailable, match="cannot be written .*too large"):
            cache.create(KEY, kilobytes(500))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(cache.folder / "drafts") == [] and cache.find("small") is not None


def test_a_disk_that_fills_up_before_the_commit(cache):
    draft = cache.create(KEY, kilobytes(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(CacheUnavailable, match="cannot be written"):
            draft.commit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(cache.folder / "drafts") == [] and cache.find(KEY) is None


@pytest.mark.parametrize("place", ["a file", "below a file", "/proc/nothing"])
def test_a_folder_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").touch()
    folder = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "cache"}.get(place, Path(place))
    cache = ArrayCache(folder, max_bytes=MB)
    assert cache.find(KEY) is None
    with pytest.raises(CacheUnavailable, match=f"the cache folder {folder} cannot be written"):
        cache.create(KEY, SHAPES)


def test_a_manifest_says_what_is_there(cache):
    filled(cache)
    said = json.loads((cache.folder / "entries" / KEY / "manifest.json").read_text())["manifest"]
    assert said["key"] == KEY and said["arrays"]["ids"]["shape"] == [5, 3] and said["arrays"]["ids"]["bytes"] == 60


def test_where_caches_are(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for name in ("FINETUNE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert folder_of("") == Path("/home/me/.cache/finetune")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert folder_of("") == Path("/scratch/finetune")
    monkeypatch.setenv("FINETUNE_CACHE", "~/fast")
    assert folder_of("") == Path("/home/me/fast")
    assert folder_of("/mine") == Path("/mine")
