"""What a CPU run changes of the process, and that it is put back."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from finetune.cpu_runtime import cpu_runtime, why_unset

needs_glibc = pytest.mark.skipif(
    why_unset("cpu", "auto", environment={}) is not None, reason="the C library is not glibc"
)
# Page faults of blocks of 48 MiB, more than glibc keeps by itself: before, within and after.
_SCRIPT = """
import json, resource, sys
from finetune.cpu_runtime import cpu_runtime

def faults():
    for turn in range(15):
        if turn == 5:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        b"x" * (48 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

told = [faults()]
with cpu_runtime(*sys.argv[1:]):
    told.append(faults())
told.append(faults())
print(json.dumps(told))
"""


def faults(*arguments: str, **environment: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return json.loads(done.stdout)


@needs_glibc
def test_freed_memory_is_kept_for_the_run_only():
    before, within, after = faults("cpu", "auto")
    assert before > 0
    assert within < before / 4
    assert after > before / 2


@needs_glibc
@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(("cpu", "off"), {}), (("cuda", "auto"), {}), (("cpu", "auto"), {"MALLOC_TOP_PAD_": "0"})],
)
def test_off_is_off(arguments, environment):
    before, within, _ = faults(*arguments, **environment)
    assert within > before / 2


@pytest.mark.parametrize(
    ("device", "setting", "environment", "why"),
    [
        ("cpu", "off", {}, "off"),
        ("cuda", "auto", {}, "only on a CPU"),
        ("cpu", "auto", {"MALLOC_MMAP_THRESHOLD_": "1"}, "the environment sets it"),
        ("cpu", "auto", {"GLIBC_TUNABLES": "glibc.malloc.check=0:glibc.malloc.trim_threshold=1"}, "the environment"),
    ],
)
def test_why_not(device, setting, environment, why):
    assert why in str(why_unset(device, setting, environment=environment))


@needs_glibc
def test_settings_of_other_things_do_not_count():
    environment = {"MALLOC_ARENA_MAX": "2", "GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}
    assert why_unset("cpu", "auto", environment=environment) is None


@pytest.mark.parametrize("answer", [ValueError, OSError, None, "musl 1.2"])
def test_another_c_library_is_left_alone(answer, monkeypatch):
    def confstr(name):
        if isinstance(answer, type):
            raise answer
        return answer

    monkeypatch.setattr(os, "confstr", confstr)
    assert why_unset("cpu", "auto", environment={}) == "the C library is not glibc"
    with cpu_runtime("cpu", "auto"):
        assert torch.ones(3).sum() == 3


def test_the_process_is_left_as_it_was_found():
    def found():
        return torch.get_num_threads(), torch.tensor([1e-42]).mul(1.0).item(), dict(os.environ)

    before = found()
    with pytest.raises(KeyError), cpu_runtime("cpu", "auto"):
        assert found() == before
        raise KeyError
    assert found() == before
