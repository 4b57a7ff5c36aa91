"""What safety costs: writing, verifying, finding back to a position."""

from __future__ import annotations

from ..definition import OURS, Contender, Row, Target, Work
from ..safety import first_batch, ours, plain, synced, verifying, writing

_NOTHING = Work(shape="bert-tiny", lengths="16", batch_size=8, validation=4)  # neither model nor data are read
_SYNCED, _PLAIN, _START = "safetensors, synced", "safetensors", "at update 0"

ROWS = (
    Row(
        name="save",
        title="writing a checkpoint of 500 MB: summed, synced, with its manifest",
        work=_NOTHING,
        contenders=(
            Contender(name=OURS, run=writing(ours)),
            Contender(name=_SYNCED, run=writing(synced)),
            Contender(name=_PLAIN, run=writing(plain)),
        ),
        targets=(
            Target(against=_SYNCED, kind="share", must=1.15),
            Target(against=_PLAIN, kind="share", must=1.15),
        ),
        note="`safetensors` returns before anything is on a disk.",
        bound="a synced write waits for the disk, whoever sums what: 500 MB by its own rate. Training does not wait, "
        "as a save is written beside it (row `checkpoint`).",
    ),
    Row(
        name="verify",
        title="reading a checkpoint of 500 MB with its checksums, a GB",
        work=_NOTHING,
        contenders=(Contender(name=OURS, run=verifying),),
        targets=(Target(against=OURS, kind="most", must=2.0),),
        value="seconds_per_gb",
    ),
    Row(
        name="position",
        title="from nothing to the batch of update 1,000,000, of a million examples",
        work=_NOTHING,
        contenders=(
            Contender(name=OURS, run=first_batch(1_000_000)),
            Contender(name=_START, run=first_batch(0)),
        ),
        targets=(
            Target(against=OURS, kind="most", must=1.0),
            Target(against=_START, kind="share", must=1.5),
        ),
    ),
)
