"""Everything that is wrong with a configuration, as one message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import ConfigError

_MOST = 30  # lines of one message


class Fault(NamedTuple):
    """One thing that is wrong, at a dotted path."""

    path: str
    what: str


def raise_all(faults: Sequence[Fault], origins: Mapping[str, str], *, default: str) -> None:
    """One error with every fault, each with its path and where that was written.

    Args:
        faults: What was found.
        origins: File and line, or command line, by dotted path; a path that is not there is its parent's.
        default: Where everything else comes from.

    Raises:
        ConfigError: There was any fault.
    """
    if not faults:
        return
    lines = [
        f"{fault.path or 'run'} ({_origin(fault.path, origins) or default}): {fault.what}" for fault in faults[:_MOST]
    ]
    if len(faults) == 1:
        raise ConfigError(lines[0])
    if len(faults) > _MOST:
        lines.append(f"and {len(faults) - _MOST} more")
    raise ConfigError(f"{len(faults)} faults in the configuration\n" + "\n".join(f"  {line}" for line in lines))


def _origin(path: str, origins: Mapping[str, str]) -> str:
    """Where a path was written; else something in it; else what it is in."""
    while path:
        if path in origins:
            return origins[path]
        inside = [origin for key, origin in origins.items() if key.startswith((f"{path}.", f"{path}["))]
        if inside:
            return inside[-1]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return ""
