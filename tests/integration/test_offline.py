"""Hub ids through the command line where nobody answers: one attempt, one message, and no waiting."""

from __future__ import annotations

import os
import socket
import sys
import time

import pytest

from finetune.cli import main
from finetune.config import dump
from tests.forked import ended_child
from tests.runs import config, text_task

LIMIT_S = 3.0
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(dump(config(text_task(tmp_path), length="2 steps")))
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def imported():
    """The libraries, whose import is no part of the time that is measured, and which a fork inherits."""
    import datasets  # noqa: F401
    import evaluate  # noqa: F401
    import timm  # noqa: F401
    import transformers  # noqa: F401


def online(port):
    """In a child: as if nobody had set HF_HUB_OFFLINE, with a Hub at a port where nobody listens."""
    import datasets
    import huggingface_hub.constants as hub

    from finetune.models.offline import _reachable

    address = f"http://127.0.0.1:{port}"
    for name in [name for name in os.environ if name.startswith("HF_")]:
        del os.environ[name]
    os.environ["HF_ENDPOINT"] = address
    hub.HF_HUB_OFFLINE, hub.ENDPOINT, hub.HUGGINGFACE_CO_URL_TEMPLATE = False, address, address + "/{repo_id}"
    datasets.config.HF_HUB_OFFLINE = datasets.config.HF_DATASETS_OFFLINE = False
    datasets.config.HF_ENDPOINT = address
    _reachable.cache_clear()


CASES = {
    "model": (["plan", "./tiny.yaml", "task.model=google-bert/bert-base-uncased"], "hf download google-bert/bert"),
    "timm": (["plan", "vit_images", "task.model=timm:vit_tiny_patch16_224.augreg_in21k"], "hf download timm/vit_tiny"),
    "timm-hub": (["plan", "vit_images", "task.model=timm:user/name"], "hf download user/name"),
    "data-name": (["plan", "./tiny.yaml", "task.data=sst2"], "stanfordnlp/sst2"),
    "data-id": (["plan", "./tiny.yaml", "task.data={name: user/name, text: text}"], "user/name"),
    "metric": (
        ["plan", "./tiny.yaml", "--trust-remote-code"]
        + [f"task.metrics=[{{source: user/metric, revision: {REVISION}, direction: maximize}}]"],
        "user/metric",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_hub_id_without_a_network_is_given_up_at_once(case, place, noted):
    words, said = CASES[case]
    report = place / "found"

    def work():
        attempts, waited = [], [0.0]
        sleep = time.sleep
        sys.addaudithook(lambda event, arguments: attempts.append(1) if event == "socket.connect" else None)
        time.sleep = lambda seconds: (waited.append(seconds), sleep(seconds))[1]
        with socket.socket() as closed:  # bound, so nobody else takes the port, but not listening
            closed.bind(("127.0.0.1", 0))
            online(closed.getsockname()[1])
            began, used = time.perf_counter(), time.process_time()
            try:
                main(argv=words)
            finally:
                took, worked = time.perf_counter() - began, time.process_time() - used
                report.write_text(f"{len(attempts)} {sum(waited)} {took} {worked}")

    done = ended_child(work)
    attempts, waited, took, worked = map(float, report.read_text().split())
    print(f"{case}: {attempts:g} attempts, {took:.2f} s, {worked:.2f} s of them work")
    assert done.code == 2 and done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
    assert said in done.err
    assert attempts <= 2 and waited < LIMIT_S, (attempts, waited)
    assert took < LIMIT_S + 5 * worked, (took, worked)  # a busy machine stretches work, and not waiting
    assert noted() == []
