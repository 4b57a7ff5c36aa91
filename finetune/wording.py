"""Numbers and settings as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def rate(value: float) -> str:
    """A learning rate: ``2e-05``, ``0`` where nothing moves."""
    return "0" if value == 0 else f"{value:.2e}".replace("e-0", "e-").replace(".00e", "e")


def count(value: int) -> str:
    """A count with thousands apart: ``22,713,216``."""
    return f"{value:,}"


def size(num_bytes: float) -> str:
    """Bytes with a unit: ``86.6 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(num_bytes) < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def number(value: float) -> str:
    """Four digits, and no more."""
    return f"{value:.4f}" if math.isfinite(value) else str(value)


def worded(part: Any) -> str:
    """``discriminative (decay 0.95, base lora)``: a component's name and those of its settings that say something."""
    if not isinstance(part, Mapping):
        return str(part)
    shown = []
    for key, value in part.items():
        if key == "name" or value is None or value == {}:
            continue
        if isinstance(value, float):
            value = rate(value) if key in ("lr", "head_lr") else f"{value:g}"
        elif isinstance(value, Mapping):
            value = worded(value)
        elif isinstance(value, (list, tuple)):
            value = "/".join(f"{item:g}" if isinstance(item, float) else _word(item) for item in value)
        shown.append(f"{key} {value}")
    return (f"{part.get('name', '')}" + (f" ({', '.join(shown)})" if shown else "")).strip()


def _word(item: Any) -> str:
    return "+".join(map(str, item)) if isinstance(item, (list, tuple)) else str(item)
