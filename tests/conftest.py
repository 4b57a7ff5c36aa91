"""What holds for every test: no network, one thread, no leftovers of Accelerate."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["FINETUNE_CACHE"] = tempfile.mkdtemp(prefix="finetune-cache-")  # never the user's own
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


def pytest_unconfigure():
    shutil.rmtree(os.environ["FINETUNE_CACHE"], ignore_errors=True)


_LOCAL = {"127.0.0.1", "::1", "localhost"}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Nothing in the default suite may leave this machine."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in _LOCAL:
            raise OSError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew instead of comparing")
