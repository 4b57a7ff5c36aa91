"""A checkpoint is whole or it is not used: every damage is found, and the one before it is taken."""

from __future__ import annotations

import os
import random
import shutil
import time
import warnings

import pytest
import torch
import xxhash

from finetune.checkpoints.documents import from_json, to_json
from finetune.checkpoints.manifest import MANIFEST
from finetune.checkpoints.reading import newest_good, read_checkpoint
from finetune.checkpoints.writing import write_checkpoint
from finetune.errors import RunFolderError, StorageError

RUN = "run-a"
FILES = ["model.safetensors", "optimizer.safetensors", "progress.json", MANIFEST]


def content(step: int) -> dict:
    generator = torch.Generator().manual_seed(step)
    return {
        "tensors": {
            "model": {"head.weight": torch.randn(3, 4, generator=generator), "empty": torch.empty(0, 2)},
            "optimizer": {"head.weight/exp_avg": torch.randn(3, 4, generator=generator)},
        },
        "documents": {"progress": {"step": step, "evaluations": [[step, 0.5], [step, float("nan")]]}},
    }


def save(root, step: int, *, run_id: str = RUN):
    return write_checkpoint(root, step, **content(step), run_id=run_id, parent_step=step - 10)


def assert_is(found, step: int) -> None:
    expected = content(step)
    assert found is not None and (found.step, found.parent_step) == (step, step - 10)
    assert found.tensors.keys() == expected["tensors"].keys()
    for stem, named in expected["tensors"].items():
        assert found.tensors[stem].keys() == named.keys()
        assert all(torch.equal(found.tensors[stem][name], tensor) for name, tensor in named.items())
    assert repr(found.documents) == repr(expected["documents"])


@pytest.fixture
def root(tmp_path):
    """Two good checkpoints, of steps 10 and 20."""
    for step in (10, 20):
        save(tmp_path / "checkpoints", step)
    return tmp_path / "checkpoints"


def assert_falls_back(root, file: str) -> None:
    with pytest.warns(UserWarning, match="passed over") as caught:
        assert_is(newest_good(root), 10)
    assert len(caught) == 1 and "step-000020" in str(caught[0].message) and file in str(caught[0].message)
    with pytest.raises(RunFolderError, match=file) as refused:
        read_checkpoint(root / "step-000020")
    assert refused.value.exit_code == 2


def test_what_is_written_is_read(root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_is(newest_good(root), 20)
    assert_is(read_checkpoint(root / "step-000010"), 10)
    assert sorted(os.listdir(root)) == ["step-000010", "step-000020"]


def test_a_run_without_checkpoints_has_none(tmp_path):
    assert newest_good(tmp_path / "checkpoints") is None
    (tmp_path / "checkpoints").mkdir()
    assert newest_good(tmp_path / "checkpoints") is None


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["empty", "half", "shorter", "longer", "deleted", "link", "pipe", "folder"])
def test_a_damaged_file_is_found(root, file, damage):
    path = root / "step-000020" / file
    data = path.read_bytes()
    path.unlink()
    if damage == "link":
        (root / "elsewhere").write_bytes(data)
        path.symlink_to(root / "elsewhere")
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "folder":
        path.mkdir()
    elif damage != "deleted":
        path.write_bytes(
            {"empty": b"", "half": data[: len(data) // 2], "shorter": data[:-1], "longer": data + b"\n"}[damage]
        )
    assert_falls_back(root, file)


@pytest.mark.parametrize("file", FILES)
def test_one_flipped_bit_is_found(root, file):
    path = root / "step-000020" / file
    data = path.read_bytes()
    draw = random.Random(7)
    for place in [draw.randrange(len(data) * 8) for _ in range(64)]:
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(RunFolderError, match=file):
            read_checkpoint(path.parent)
    path.write_bytes(flipped)
    assert_falls_back(root, file)


def test_all_damaged_stops_with_each_reason(root):
    (root / "step-000010" / MANIFEST).unlink()
    (root / "step-000020" / "model.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(StorageError) as refused:
        newest_good(root)
    assert refused.value.exit_code == 74
    for part in ("step-000010: MANIFEST.json", "step-000020: model.safetensors: 0 bytes, expected"):
        assert part in str(refused.value)


def test_strays_are_ignored_and_kept(root):
    strays = {
        ".DS_Store": b"x",
        "step-000030": b"a file, not a folder",
        "step-abc": None,
        "step-": None,
        "step-000020 copy": None,
        "checkpoint-40": None,
        ".tmp-step-000050-other": None,
        ".bad-step-000060-1": None,
        "._step-000070": b"",
        "best": None,
        "step--1": None,
    }
    for name, data in strays.items():
        if data is None:
            shutil.copytree(root / "step-000020", root / name)
        else:
            (root / name).write_bytes(data)
    (root / "step-000090").symlink_to(root / "step-000020")
    (root / "step-000020" / "notes.txt").write_text("mine")
    (root / "step-000020" / "evil.pkl").write_bytes(b"\x80\x04.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_is(newest_good(root), 20)
    assert {*strays, "step-000090"} <= set(os.listdir(root))


def test_the_order_is_the_manifests(root, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    save(root, 30)
    for age, step in enumerate((30, 20, 10)):
        os.utime(root / f"step-{step:06d}", (10**9 + age, 10**9 + age))
    shutil.copytree(root / "step-000010", root / "step-000999")  # a copy under a later name is still step 10
    assert_is(newest_good(root), 30)


def test_a_moved_run_is_read_where_it_is(root, tmp_path):
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "elsewhere" / "checkpoints")
    shutil.rmtree(root)
    assert_is(newest_good(tmp_path / "elsewhere" / "checkpoints"), 20)


def test_a_checkpoint_of_another_run_is_passed_over(root):
    save(root, 90, run_id="run-b")
    with pytest.warns(UserWarning, match="another run"):
        assert_is(newest_good(root, run_id=RUN), 20)
    assert_is(newest_good(root), 90)


def test_a_link_may_name_the_folder_but_not_be_inside(root, tmp_path):
    (tmp_path / "best").symlink_to("checkpoints/step-000010")
    assert_is(read_checkpoint(tmp_path / "best"), 10)


def test_a_good_checkpoint_of_the_step_is_kept(root):
    before = (root / "step-000020" / MANIFEST).stat()
    assert save(root, 20) == root / "step-000020"
    after = (root / "step-000020" / MANIFEST).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("why", ["rot", "other run", "a file"])
def test_what_is_in_the_way_is_moved_aside(root, why):
    way = root / "step-000020"
    if why == "rot":
        (way / "model.safetensors").write_bytes(b"rot")
    elif why == "other run":
        shutil.rmtree(way)
        save(root, 20, run_id="run-b")
    else:
        shutil.rmtree(way)
        way.write_text("mine")
    save(root, 20)
    assert_is(newest_good(root, run_id=RUN), 20)
    assert sorted(os.listdir(root)) == [".bad-step-000020-1", "step-000010", "step-000020"]


def rewritten(root, change) -> None:
    """Change the newest manifest and make its own checksum right again, as a liar would."""
    path = root / "step-000020" / MANIFEST
    body = from_json(path.read_bytes())
    del body["checksum"]
    change(body)
    body["checksum"] = xxhash.xxh3_128_hexdigest(to_json(body))
    path.write_bytes(to_json(body))


@pytest.mark.parametrize(
    "name", ["../../x.json", "/etc/passwd.json", "weights.bin", ".env.json", MANIFEST, "a/b.json"]
)
def test_a_manifest_that_names_what_it_must_not_is_refused(root, name):
    rewritten(root, lambda body: body["files"].update({name: {"size": 1, "xxh3_128": "0"}}))
    with pytest.warns(UserWarning, match="which no checkpoint of ours holds"):
        assert_is(newest_good(root), 10)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["files"].update({"model.safetensors": {"size": 2**50, "xxh3_128": "0"}}),
        lambda body: body["files"].update({"model.safetensors": 3}),
        lambda body: body.update(files=None),
        lambda body: body.update(step="20"),
        lambda body: body.update(step=-1),
        lambda body: body.pop("run_id"),
        lambda body: body.pop("format_version"),
    ],
)
def test_a_manifest_that_lies_is_refused(root, change):
    rewritten(root, lambda body: None)
    assert_is(newest_good(root), 20)
    rewritten(root, change)
    with pytest.warns(UserWarning, match="passed over"):
        assert_is(newest_good(root), 10)


def test_a_newer_format_says_who_made_it(root):
    rewritten(root, lambda body: body.update(format_version=2, made_by="finetune 9.0"))
    with pytest.raises(RunFolderError, match=r"made by finetune 9\.0 in format 2; this is finetune .* reads format 1"):
        read_checkpoint(root / "step-000020")


def test_what_cannot_be_kept_leaves_nothing_behind(root):
    before = sorted(os.listdir(root))
    for tensors, documents in [({"model": {"w": 3}}, {}), ({}, {"progress": {"x": object()}})]:
        with pytest.raises(TypeError):
            write_checkpoint(root, 30, tensors=tensors, documents=documents, run_id=RUN)
    assert sorted(os.listdir(root)) == before
