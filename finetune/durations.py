"""Lengths of time with a unit: ``"3 epochs"``, ``"500 steps"``, ``"10%"``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

_UNITS = {"epoch": "epochs", "epochs": "epochs", "step": "steps", "steps": "steps", "%": "%"}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z%]+)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Duration:
    """A stretch of training: a number of epochs or steps, or a share of the whole.

    What a percentage is a share of (the run, a phase) is said by the field that holds it.
    """

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str | Duration) -> Duration:
        """Read ``"3 epochs"``, ``"500 steps"`` or ``"10%"``.

        Raises:
            ValueError: For anything else; the message says how to write it.
        """
        if isinstance(text, Duration):
            return text
        match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
        unit = _UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise ValueError(f"{text!r} is not a duration; write e.g. '3 epochs', '500 steps' or '10%'")
        amount = float(match[1])
        if unit == "%" and amount > 100:
            raise ValueError(f"{text!r} is more than the whole; a share is at most '100%'")
        return cls(amount, unit)

    def __str__(self) -> str:
        amount = f"{self.amount:.10f}".rstrip("0").rstrip(".")  # not %g, which cannot say 1234567
        if self.unit == "%":
            return f"{amount}%"
        return f"{amount} {self.unit.removesuffix('s') if self.amount == 1 else self.unit}"

    def __mul__(self, factor: float) -> Duration:
        return Duration(self.amount * factor, self.unit)

    def steps(self, *, steps_per_epoch: int, total_steps: int) -> int:
        """The number of updates, rounded to the nearest (halves up).

        Args:
            steps_per_epoch: Updates that make one epoch.
            total_steps: Updates of the whole that a percentage is a share of.
        """
        return math.floor(self._exact(steps_per_epoch, total_steps) + 0.5 + 1e-9)

    def _exact(self, steps_per_epoch: int, total_steps: int) -> float:
        if self.unit == "epochs":
            return self.amount * steps_per_epoch
        if self.unit == "steps":
            return self.amount
        return self.amount * total_steps / 100


@dataclass(frozen=True)
class CheckedText:
    """Marks text that is checked where a configuration is read, along with all other fields; it stays text.

    Args:
        check: Returns the text to keep, or raises a ValueError that says how to write it.
    """

    check: Callable[[Any], str]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self.check)


def _duration(text: Any) -> str:
    return str(Duration.parse(text))


def _length(text: Any) -> str:
    if Duration.parse(text).unit == "%":
        raise ValueError(f"{str(text)!r} is a share of nothing; write e.g. '3 epochs' or '500 steps'")
    return _duration(text)


def _interval(text: Any) -> str:
    if Duration.parse(text).amount == 0:
        raise ValueError(f"{str(text)!r} is no interval; write e.g. '1 epoch' or '100 steps'")
    return _duration(text)


DurationText = Annotated[str, CheckedText(_duration)]
LengthText = Annotated[str, CheckedText(_length)]  # of a whole run, so no share of it
IntervalText = Annotated[str, CheckedText(_interval)]  # in which something can happen again and again


def check_interval(text: str | Duration, *, field: str) -> None:
    """Whether ``text`` is an interval in which something can happen again and again.

    Raises:
        ValueError: It is no duration, or none at all; the message begins with the field.
    """
    try:
        _interval(text)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def due_steps(every: DurationText, *, steps_per_epoch: int, total_steps: int) -> list[int]:
    """The steps after which something that happens ``every`` so often happens, up to ``total_steps``.

    The n-th time is at the rounded n-th multiple, so ``"0.3 epochs"`` does not drift; never twice at a step.
    """
    period = max(1.0, Duration.parse(every)._exact(steps_per_epoch, total_steps))
    steps = (math.floor(count * period + 0.5 + 1e-9) for count in range(1, math.ceil(total_steps / period) + 1))
    return [step for step in steps if step <= total_steps]
