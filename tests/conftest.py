"""What holds for every test: no network, no pickle from a file, one thread, no leftovers of Accelerate."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["FINETUNE_CACHE"] = tempfile.mkdtemp(prefix="finetune-cache-")  # never the user's own
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("COLUMNS", None)  # tables are as wide as where nobody looks
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).with_name("audit")))
# ... and of the interpreters that tests start, where sitecustomize.py beside it is found by its name
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (sys.path[0], os.environ.get("PYTHONPATH"))))

import audited
import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile(  # no test is a clock, and the machine may be busy
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")
_IS_OUTERMOST = audited.VARIABLE not in os.environ  # and not a test session that a test started
if _IS_OUTERMOST:
    handle, os.environ[audited.VARIABLE] = tempfile.mkstemp(prefix="finetune-audit-")
    os.close(handle)
    audited.install()  # else it came by sitecustomize
audited.watch(torch)


def pytest_sessionfinish(session):
    if _IS_OUTERMOST and audited.offences(os.environ[audited.VARIABLE]):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    found = audited.offences(os.environ[audited.VARIABLE]) if _IS_OUTERMOST else []
    if found:
        terminalreporter.section("read a pickle from a file, or reached beyond this machine", red=True)
        terminalreporter.write("\n".join([*found, ""]))


@pytest.fixture
def noted(tmp_path, monkeypatch):
    """What a test does that tries the audit stands in a report of its own, and does not count."""
    report = tmp_path / "audit-report"
    report.touch()
    monkeypatch.setenv(audited.VARIABLE, str(report))
    return lambda: [line.partition(": ")[2] for line in audited.offences(str(report))]


def pytest_unconfigure():
    shutil.rmtree(os.environ["FINETUNE_CACHE"], ignore_errors=True)
    if _IS_OUTERMOST:
        os.unlink(os.environ.pop(audited.VARIABLE))


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew instead of comparing")
