from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import LaunchError
from finetune.precision import Precision, ScalerState, accelerate_word, resolved, torch_dtype, why_not_native

CPU = torch.device("cpu")


def trace(precision: Precision, overflows: str, *, name: str = "fp16") -> list[ScalerState]:
    """The scaler before each update and after the last; ``x`` overflows."""
    states = [precision.initial_state(name)]
    for mark in overflows:
        states.append(precision.after_update(states[-1], finite=mark != "x"))
    return states


def test_the_golden_trace():
    states = trace(Precision(initial_scale=4.0, interval=2, min=0.5), "x..x.....")
    assert [state.scale for state in states] == [4, 2, 2, 4, 2, 2, 4, 4, 8, 8]
    assert [state.good_steps for state in states] == [0, 0, 1, 0, 0, 1, 0, 1, 0, 1]
    assert [state.skipped for state in states] == [0, 1, 1, 1, 2, 2, 2, 2, 2, 2]


@settings(deadline=None)
@given(
    st.text(alphabet=".x", max_size=40), st.integers(1, 4), st.sampled_from([1.5, 2.0]), st.sampled_from([0.5, 0.25])
)
def test_the_scale_is_that_of_torch(overflows, interval, growth, backoff):
    """As torch's own GradScaler on the same overflows."""
    precision = Precision(
        initial_scale=1024.0, growth=growth, backoff=backoff, interval=interval, min=2.0**-60, max=2.0**60
    )
    scaler = torch.amp.GradScaler(
        "cpu", init_scale=1024.0, growth_factor=growth, backoff_factor=backoff, growth_interval=interval
    )
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.0)
    expected = [scaler.get_scale()]
    for mark in overflows:
        scaler.scale(weight * 0).backward()  # creates the scale
        weight.grad = torch.full((1,), torch.inf if mark == "x" else 1.0)
        scaler.step(optimizer)
        scaler.update()
        expected.append(scaler.get_scale())
    found = [state.scale for state in trace(precision, overflows)]
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_scale_stays_within_its_bounds():
    precision = Precision(initial_scale=4.0, interval=1, min=2.0, max=8.0)
    assert [state.scale for state in trace(precision, "....xxxx")] == [4, 8, 8, 8, 8, 4, 2, 2, 2]


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_only_fp16_scales(name):
    assert Precision().initial_state(name) == ScalerState(1.0, 0, 0)
    assert Precision().initial_state("fp16").scale == 2.0**16


@pytest.mark.parametrize(
    "fields", [{"initial_scale": 0.5}, {"max": 1024.0}, {"min": 2.0**17}, {"min": 8.0, "max": 4.0}]
)
def test_the_first_scale_lies_within_the_bounds(fields):
    with pytest.raises(ValueError, match="initial_scale .* is outside min .* .. max"):
        Precision(**fields)


@pytest.mark.parametrize(
    ("name", "launcher", "expected"),
    [
        ("auto", None, "fp32"),
        ("auto", "no", "fp32"),
        ("auto", "bf16", "bf16"),
        ("auto", "fp16", "fp16"),
        ("fp32", "no", "fp32"),
        ("fp32", None, "fp32"),
        ("bf16", "bf16", "bf16"),
        ("bf16", None, "bf16"),
        ("fp16", "fp16", "fp16"),
    ],
)
def test_auto_is_what_the_launcher_says(name, launcher, expected):
    assert resolved(Precision(name=name, emulate="yes"), launcher=launcher, device=CPU) == expected


@pytest.mark.parametrize(
    ("name", "launcher"), [("bf16", "no"), ("fp32", "bf16"), ("fp16", "bf16"), ("bf16", "fp16"), ("fp32", "fp16")]
)
def test_launcher_and_configuration_may_not_differ(name, launcher):
    with pytest.raises(
        LaunchError, match=f"precision.name is {name}, but the launcher says mixed_precision: {launcher}"
    ):
        resolved(Precision(name=name, emulate="yes"), launcher=launcher, device=CPU)


def test_a_format_of_the_launcher_that_we_do_not_have():
    with pytest.raises(LaunchError, match="mixed_precision: fp8 is not supported; use no, bf16 or fp16"):
        resolved(Precision(), launcher="fp8", device=CPU)


@pytest.fixture
def cpu(monkeypatch):
    """A CPU with these flags, as Linux describes it."""

    def with_flags(flags: str) -> None:
        text = f"processor : 0\nmodel name : avx512_bf16 amx_fp16\nflags : fpu avx2 {flags}\n"
        monkeypatch.setattr("finetune.precision.open", lambda *_, **__: io.StringIO(text), raising=False)

    return with_flags


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_what_the_cpu_cannot_do_natively_is_refused_unless_emulated(name, cpu):
    cpu("avx512f avx512_bf16x")
    for asked, launcher in ((name, None), ("auto", name)):
        with pytest.raises(LaunchError, match=f"precision {name}: this CPU .*set precision.emulate: yes"):
            resolved(Precision(name=asked), launcher=launcher, device=CPU)
        assert resolved(Precision(name=asked, emulate="yes"), launcher=launcher, device=CPU) == name


@pytest.mark.parametrize("flags", ["avx512_bf16 amx_fp16", "amx_bf16 amx_tile amx_fp16"])
def test_what_the_cpu_can_do_natively_runs(flags, cpu):
    cpu(flags)
    assert why_not_native("bf16", CPU) is None and why_not_native("fp16", CPU) is None
    assert resolved(Precision(name="fp16"), launcher=None, device=CPU) == "fp16"


def test_fp32_always_runs(cpu):
    cpu("")
    assert resolved(Precision(), launcher=None, device=CPU) == "fp32"


def test_the_words_of_the_libraries():
    assert [accelerate_word(name) for name in ("fp32", "bf16", "fp16")] == ["no", "bf16", "fp16"]
    assert [torch_dtype(name) for name in ("fp32", "bf16", "fp16")] == [torch.float32, torch.bfloat16, torch.float16]
