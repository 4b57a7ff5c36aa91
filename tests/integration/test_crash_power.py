"""A power cut after any file operation leaves every checkpoint reported saved, and none that is half there."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from pathlib import Path

import pytest
import torch

from finetune.checkpoints.atomic import write_file_atomically
from finetune.checkpoints.files import Files
from finetune.checkpoints.reading import newest_good, read_checkpoint, step_name
from finetune.checkpoints.retention import rotate
from finetune.checkpoints.writing import write_checkpoint

REAL = Files()
CHANGING = {name for name in vars(Files) if not name.startswith("_")} - {"listdir", "size", "read"}


@pytest.fixture
def place():
    """A folder in memory where there is one: an fsync costs 6 ms on a disk."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


class Node:
    """A file or folder: as programs see it now, and as it is on the disk for certain."""

    def __init__(self, now):
        self.now, self.disk = now, type(now)()


class Disk:
    """A file system that keeps what was synced and may lose, or keep, everything else.

    It records every change and hands it to the real one too; ``images`` are what a power cut could leave.
    """

    def __init__(self, root: Path):
        self.root, self.top, self.open = root, Node({}), {}

    def node(self, path: Path) -> Node:
        node = self.top
        for part in path.relative_to(self.root).parts:
            node = node.now[part]
        return node

    def __getattr__(self, name):
        real = getattr(REAL, name)

        def call(*arguments):
            result = real(*arguments)
            getattr(self, f"_{name}", lambda *_: None)(result, *arguments)
            return result

        return call

    def _open_write(self, handle, path):
        self.node(path.parent).now[path.name] = self.open[handle] = Node(b"")

    def _make_folder(self, _, path):
        self.node(path.parent).now[path.name] = Node({})

    def _write(self, _, handle, data):
        self.open[handle].now += bytes(data)

    def _fsync(self, _, handle):
        self.open[handle].disk = self.open[handle].now

    def _fsync_path(self, _, path):
        node = self.node(path)
        node.disk = dict(node.now)

    def _rename(self, _, source, target):
        self.node(target.parent).now[target.name] = self.node(source.parent).now.pop(source.name)

    def _rmtree(self, _, path):
        node = self.node(path.parent).now.pop(path.name)
        node.now = {}

    def image(self, into: Path, *, outer: str, inner: str) -> None:
        """Lay out the checkpoints folder from ``now`` or ``disk`` entries; data is what was synced."""
        into.mkdir()
        checkpoints = self.top.now.get("checkpoints", Node({}))
        for name, folder in getattr(checkpoints, outer).items():
            (into / name).mkdir()
            for file, node in getattr(folder, inner).items():
                (into / name / file).write_bytes(node.disk)


class Cut(Disk):
    """Looks at every image after every operation that changes something."""

    def __init__(self, root: Path, look):
        super().__init__(root)
        self.look = look

    def __getattr__(self, name):
        call = super().__getattr__(name)

        def then_look(*arguments):
            result = call(*arguments)
            if name in CHANGING:
                self.look(self)
            return result

        return then_look


def test_power_cut_after_every_operation(place):
    root, acknowledged, looked = place / "checkpoints", [0], []

    def look(disk):
        for outer in ("now", "disk"):
            for inner in ("now", "disk"):
                into = place / f"image-{len(looked)}"
                disk.image(into, outer=outer, inner=inner)
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    found = newest_good(into)
                assert (found.step if found else 0) >= acknowledged[-1]
                for name in os.listdir(into):  # whatever carries a final name is whole
                    assert not name.startswith("step-") or read_checkpoint(into / name)
                shutil.rmtree(into)
                looked.append((outer, inner))

    disk = Cut(place, look)
    for step in (1, 2, 3):
        tensors = {"model": {"w": torch.full((4,), step)}}
        write_checkpoint(root, step, tensors=tensors, documents={"progress": {}}, run_id="r", files=disk)
        acknowledged.append(step)
        rotate(root, run_id="r", scores={}, keep_last=1, keep_best=0, files=disk)
    assert len(looked) > 200
    assert step_name(3) in disk.top.disk["checkpoints"].disk


def test_power_cut_while_a_file_is_replaced(place):
    def look(disk):
        for entries in (disk.top.now, disk.top.disk):
            if "plan.json" in entries:
                assert entries["plan.json"].disk in (b"old", b"new!")

    disk = Cut(place, look)
    for text in (b"old", b"new!"):
        write_file_atomically(place / "plan.json", text, files=disk)
        assert disk.top.disk["plan.json"].disk == text
