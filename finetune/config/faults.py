"""Everything that is wrong with a configuration, as one message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import ConfigError


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
    lines = [f"{fault.path or 'run'} ({_origin(fault.path, origins) or default}): {fault.what}" for fault in faults]
    if len(lines) == 1:
        raise ConfigError(lines[0])
    raise ConfigError(f"{len(lines)} faults in the configuration\n" + "\n".join(f"  {line}" for line in lines))


def _origin(path: str, origins: Mapping[str, str]) -> str:
    while path:
        if path in origins:
            return origins[path]
        path = path.rpartition(".")[0]
    return ""
