"""Nobody reads, or nothing can be written: the run goes on, and a verb that has nothing but its words says so."""

# ruff: noqa: F401, F811 - fixtures are imported by name
from __future__ import annotations

import os
import sys

import pytest

from finetune.cli import main
from finetune.config import dump
from tests import runs
from tests.forked import ended_child
from tests.integration.test_signals import SETTINGS, folder, last_line, left, place, recipe_file, task, whole


@pytest.fixture(scope="module")
def recipe(place, task):
    (place / "tiny.yaml").write_text(dump(runs.config(task, **SETTINGS)))
    return str(place / "tiny.yaml")


def broken_pipe() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


BROKEN = {"nobody reads": broken_pipe, "full disk": full_disk}


@pytest.mark.parametrize("numbers", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("opened", BROKEN.values(), ids=BROKEN)
def test_broken_streams_end_no_run(recipe, folder, whole, opened, numbers):
    def with_broken_streams():
        for number in numbers:
            os.dup2(opened(), number)
        main(argv=["train", recipe, f"output_dir={folder}"])

    assert ended_child(with_broken_streams).code == 0
    assert last_line(folder) == ("finished", 0)


def test_closed_streams_do_not_end_up_in_files(folder, whole):
    """Without them the run's own files would be opened under their numbers, and take what C code prints."""
    file = recipe_file(folder, "Acting(task, 4, lambda: [os.write(number, b'junk') for number in (1, 2)])")

    def without_streams():
        for number in (0, 1, 2):
            os.close(number)
        sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None  # as Python starts without them
        main(argv=["train", str(file)])

    assert ended_child(without_streams).code == 0
    assert left(folder) == whole


def test_a_table_that_cannot_be_written_is_told(folder):
    def listing():
        os.dup2(full_disk(), 1)
        main(argv=["recipes", "--json"])

    ended = ended_child(listing)
    assert ended == (74, "error: standard output cannot be written: No space left on device\n")


def test_a_reader_who_has_seen_enough_is_no_fault():
    def listing():
        os.dup2(broken_pipe(), 1)
        main(argv=["recipes"])

    assert ended_child(listing) == (0, "")
