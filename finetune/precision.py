"""Number formats, and the dynamic loss scaler of fp16 as a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from annotated_types import Ge, Gt, Lt

from .errors import LaunchError

if TYPE_CHECKING:
    import torch

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
_ACCELERATE = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
_Positive = Annotated[float, Gt(0), Lt(float("inf"))]


class ScalerState(NamedTuple):
    """The dynamic loss scale before an update, and what led to it."""

    scale: float = 1.0
    good_steps: int = 0  # updates in a row without overflow
    skipped: int = 0  # updates that overflowed since the start of the run


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What forward and backward compute in; weights and optimizer state stay fp32.

    The scaler's fields act under fp16 only (Micikevicius et al. 2018, section 3.2; defaults of torch's GradScaler).

    Args:
        name: ``auto`` is what the launcher says, and fp32 where it says nothing.
        initial_scale: First loss scale.
        growth: Factor after ``interval`` updates in a row without overflow.
        backoff: Factor after an overflow.
        interval: Updates without overflow before the scale grows.
        min: The scale never falls below it; an overflow at it stops the run.
        max: The scale never grows above it.
        emulate: ``yes`` allows a format that the device computes only by conversion (bf16, fp16 on most CPUs).
    """

    name: PrecisionName = "auto"
    initial_scale: _Positive = 2.0**16
    growth: Annotated[float, Gt(1), Lt(float("inf"))] = 2.0
    backoff: Annotated[float, Gt(0), Lt(1)] = 0.5
    interval: Annotated[int, Ge(1)] = 2000
    min: _Positive = 1.0
    max: _Positive = 2.0**24
    emulate: Literal["yes", "no"] = "no"

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not self.min <= self.initial_scale <= self.max:
            raise ValueError(f"initial_scale {self.initial_scale:g} is outside min {self.min:g} .. max {self.max:g}")

    def initial_state(self, name: str) -> ScalerState:
        """The scaler at step 0; without fp16 the scale is 1 and stays so."""
        return ScalerState(self.initial_scale if name == "fp16" else 1.0)

    def after_update(self, state: ScalerState, *, finite: bool) -> ScalerState:  # noqa: FBT001
        """The scaler after an update whose gradients were finite, or were not (the update is then skipped)."""
        if not finite:
            return ScalerState(max(self.min, state.scale * self.backoff), 0, state.skipped + 1)
        if state.good_steps + 1 >= self.interval:
            return ScalerState(min(self.max, state.scale * self.growth), 0, state.skipped)
        return ScalerState(state.scale, state.good_steps + 1, state.skipped)


def resolved(precision: Precision, *, launcher: str | None, device: torch.device) -> str:
    """``"fp32"``, ``"bf16"`` or ``"fp16"``: what the run computes in.

    Args:
        precision: As configured.
        launcher: Accelerate's word, ``"no"``, ``"bf16"``, ``"fp16"``; None where no launcher said one.
        device: Where it runs.

    Raises:
        LaunchError: Launcher and configuration differ, or the device cannot do it and emulation is off.
    """
    names = {word: name for name, word in _ACCELERATE.items()}
    if launcher is not None and launcher not in names:
        raise LaunchError(f"mixed_precision: {launcher} is not supported; use no, bf16 or fp16")
    said = names[launcher] if launcher is not None else None
    if precision.name != "auto" and said is not None and said != precision.name:
        raise LaunchError(
            f"precision.name is {precision.name}, but the launcher says mixed_precision: {launcher}. "
            "Make them equal, or leave precision.name at auto."
        )
    name = said or ("fp32" if precision.name == "auto" else precision.name)
    if name != "fp32" and precision.emulate == "no":
        reason = why_not_native(name, device)
        if reason:
            raise LaunchError(
                f"precision {name}: {reason}. Use fp32, or set precision.emulate: yes to run it all the same."
            )
    return name


def why_not_native(name: str, device: torch.device) -> str | None:
    """Why ``device`` does not compute in ``name`` by itself; None where it does."""
    import torch

    if device.type == "cuda":
        if name == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            return f"{torch.cuda.get_device_name(device)} has no bf16 units"
        return None
    if device.type == "cpu":
        flags = torch.backends.cpu.get_cpu_capability()
        if name == "fp16":
            return "this CPU has no fp16 matrix units" if not _cpu_has("amx_fp16") else None
        if not (_cpu_has("avx512_bf16") or _cpu_has("amx_bf16")):
            return f"this CPU ({flags}) converts bf16 to fp32 for every product, which is slower than fp32"
        return None
    return None if name == "fp16" else f"bf16 on {device.type} is not known to be native"


def _cpu_has(flag: str) -> bool:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return any(flag in line.split() for line in file if line.startswith("flags"))
    except OSError:
        return False


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype that autocast computes in."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def accelerate_word(name: str) -> str:
    """Accelerate's name for it."""
    return _ACCELERATE[name]
