"""The audit of the tests sees what it says, here, in a fork and in a fresh interpreter."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import audited
import pytest
import torch

from tests.forked import ended_child

TREE = Path(__file__).parents[2]


def read_a_pickle(folder):
    with open(folder / "data", "wb") as file:
        pickle.dump(OrderedDict(a=1), file)
    with open(folder / "data", "rb") as file:
        pickle.load(file)


def test_a_pickle_is_seen_by_what_it_names(noted, tmp_path):
    read_a_pickle(tmp_path)
    assert noted() == [f"unpickled collections.OrderedDict in {__file__}"]


def test_a_pickle_of_torch_is_seen_whatever_its_name(noted, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights")
    torch.load(tmp_path / "weights", weights_only=True)
    assert noted() == [f"called torch.load on {tmp_path / 'weights'}"]


def test_a_file_of_pickles_is_seen_by_its_name(noted, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"")
    assert noted() == []
    (tmp_path / "model.bin").read_bytes()
    assert noted() == [f"opened {tmp_path / 'model.bin'}"]


def test_a_folder_that_is_removed_is_no_file_that_is_read(noted, tmp_path):
    (tmp_path / "entry" / "ids.bin" / "more.pt").mkdir(parents=True)
    shutil.rmtree(tmp_path / "entry")
    assert noted() == []


@pytest.mark.parametrize(
    "reach",
    [
        lambda: socket.create_connection(("203.0.113.1", 9), timeout=1),
        lambda: socket.socket().connect(("203.0.113.1", 9)),
        lambda: socket.socket().connect_ex(("203.0.113.1", 9)),
        lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ("203.0.113.1", 9)),
        lambda: socket.getaddrinfo("203.0.113.1", 9),
        lambda: socket.gethostbyaddr("203.0.113.1"),
    ],
)
def test_a_connection_is_refused_and_seen(noted, reach):
    with pytest.raises(OSError, match=r"a test tried to reach 203.0.113.1"):
        reach()
    assert noted() == ["tried to reach 203.0.113.1"]


def test_this_machine_may_be_reached(noted):
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    with contextlib.suppress(socket.gaierror):
        socket.getaddrinfo(socket.gethostname(), 9)
    assert noted() == []


def test_a_fork_is_watched(noted, tmp_path):
    assert ended_child(lambda: read_a_pickle(tmp_path)).code == 0
    assert noted() == [f"unpickled collections.OrderedDict in {__file__}"]


def test_a_fresh_interpreter_is_watched(noted):
    code = "import socket\nsocket.getaddrinfo('203.0.113.1', 9)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "a test tried to reach" in done.stderr and noted() == ["tried to reach 203.0.113.1"]


def test_a_name_that_only_begins_like_this_machine_is_not_it(noted):
    with pytest.raises(OSError, match=r"a test tried to reach 127\.example\.invalid"):
        socket.getaddrinfo("127.example.invalid", 9)
    assert noted() == ["tried to reach 127.example.invalid"]


def test_a_pickle_of_torch_is_seen_where_nobody_has_wrapped_its_reader(noted, tmp_path):
    """As in a fresh interpreter, or under another name."""
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights")
    torch.serialization.load(tmp_path / "weights", weights_only=True)
    assert noted() == [f"called torch.load on {tmp_path / 'weights'}"]


BLIND = {
    "isolated": (["-I"], {}),
    "no-site": (["-sS"], {}),
    "no-environment": (["-E"], {}),
    "stripped": ([], {audited.VARIABLE: None}),
    "elsewhere": ([], {"PYTHONPATH": str(TREE)}),
}


@pytest.mark.parametrize("case", BLIND)
def test_an_interpreter_that_is_not_watched_is_an_offence(case, noted):
    flags, changed = BLIND[case]
    environment = {name: value for name, value in {**os.environ, **changed}.items() if value is not None}
    subprocess.run([sys.executable, *flags, "-c", ""], env=environment, check=True)
    assert noted() == [f"started an interpreter that is not watched: {' '.join([sys.executable, *flags, '-c'])}"]


OFFENDER = """
def test_it(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"")
    (tmp_path / "a.bin").read_bytes()
"""


def test_an_offence_fails_a_session_whose_tests_pass(tmp_path, noted):
    (tmp_path / "conftest.py").write_text((TREE / "tests" / "conftest.py").read_text())
    (tmp_path / "audit").symlink_to(TREE / "tests" / "audit")
    (tmp_path / "test_offender.py").write_text(OFFENDER)
    environment = {key: value for key, value in os.environ.items() if key not in (audited.VARIABLE, "PYTHONPATH")}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "1 passed" in done.stdout, done.stdout + done.stderr
    assert "test_offender.py::test_it: opened" in done.stdout
