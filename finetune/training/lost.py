"""Other processes that a run depends on, ranks and loaders: when one is gone, the run ends with one message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from ..errors import RankLostError

# Of a collective: torch's 30 minutes are long to wait for a process that is gone. Without the second, Accelerate 1.15
# takes it for the default of NCCL, leaves it out, and gloo waits 30 minutes after all.
TIMEOUT = timedelta(minutes=10, seconds=1)
# What gloo and NCCL say of a peer, and nothing of what they say of a wrong call (torch 2.15).
_SILENT = re.compile(r"timed? ?out|timeout", re.IGNORECASE)
_GONE = re.compile(r"closed by peer|reset by peer|broken pipe|(read|write) error|remote ?error|aborted", re.IGNORECASE)
_LOADER = re.compile(r"DataLoader (?:worker \(pid(?:\(s\))? [\d, ]+\) )?(?P<what>(?:is killed|exited|timed out).*)")


@contextmanager
def told_of_losses() -> Iterator[None]:
    """Turn what torch raises for a lost process into one message.

    Around the whole run, because torch reports a loader's death from a signal handler, wherever the run is.

    Raises:
        RankLostError: Another rank, or a loader process, has ended or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        message = _message(error)
        if message is None:
            raise
        raise RankLostError(message) from error


def _message(error: RuntimeError) -> str | None:
    text = str(error)
    loader = _LOADER.match(text)
    if loader:
        what = loader["what"].split(". ")[0].rstrip(". ")
        made = "".join(f", {note}" for note in getattr(error, "__notes__", ()))  # see ``data.loading_faults``
        return (
            f"a process that loads data {what}{made}. If memory ran out, lower workers (0 needs none) or batch_size; "
            "go on with --resume."
        )
    if not (isinstance(error, dist.DistError) or "gloo/" in text):
        return None
    if _SILENT.search(text):
        return "another process of this run has not answered in time. Its own output may say why; go on with --resume."
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError) or _GONE.search(text):
        return "another process of this run has ended. Its own output says why; go on with --resume."
    return None
