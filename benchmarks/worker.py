"""One process, one contender, one round: ``python -m benchmarks.worker`` writes what it measured to a file.

measure ROW CONTENDER    do the work once
prepare ROW              make the row's models and data
gate ROW                 compare 20 updates with those of a plain loop
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from pathlib import Path
from typing import Any

from .clock import Clock
from .definition import Contender, Row, Work
from .rows import row_named
from .workloads import workload


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("measure", "prepare", "gate"))
    parser.add_argument("row")
    parser.add_argument("contender", nargs="?", default="")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    row = row_named(arguments.row)
    if arguments.what == "prepare":
        found: dict[str, Any] = prepare(row, arguments.root)
    elif arguments.what == "gate":
        from .gates import gate

        found = gate(row, arguments.root)
    else:
        found = measure(row, row.contender(arguments.contender), arguments.root)
    arguments.output.write_text(json.dumps(found), encoding="utf-8")


def prepare(row: Row, root: Path) -> dict[str, Any]:
    """Make all that the row's contenders and its gate read."""
    from .gates import gate_work

    for contender in row.contenders:
        work = contender.work or row.work
        workload(work, root)
        if contender.warms_up:
            workload(work.warmup(), root)
    if row.gate:
        workload(gate_work(row.work), root, dropout=False)
    return {}


def measure(row: Row, contender: Contender, root: Path) -> dict[str, Any]:
    """What one contender needs for the work: seconds, memory, throughput."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    work = contender.work or row.work
    data = workload(work, root)
    clock = Clock(first=work.warmup_steps, last=work.warmup_steps + work.timed_steps)
    if contender.warms_up:
        contender.run(work.warmup(), workload(work.warmup(), root), Clock())
    extra = contender.run(work, data, clock) or {}
    found: dict[str, Any] = {"memory": clock.peak_bytes}
    if "seconds" not in extra:
        found["seconds"] = clock.window() if work.timed_steps else clock.whole()
    found |= extra
    found |= throughput(work, data.lengths, data.shape.forward_flops, found["seconds"])
    if "flops_per_second" in found:
        from .matmul import peak_flops

        found["peak_flops"] = peak_flops()
        found["share_of_peak"] = found["flops_per_second"] / found["peak_flops"]
    return found


def throughput(work: Work, lengths: Any, forward_flops: Any, seconds: float) -> dict[str, float]:
    """Of a timed window; a whole run skips work that it has done before, so its rate says nothing about arithmetic."""
    if not work.timed_steps:
        return {}
    from .ours import drawn

    updates = drawn(work)[work.warmup_steps : work.warmup_steps + work.timed_steps]
    seen = [int(lengths[index]) for update in updates for index in update]
    trained = (
        2.0 if work.lora_rank else 3.0
    )  # forward, and backward to the inputs; without adapters to the weights too
    return {
        "examples_per_second": len(seen) / seconds,
        "tokens_per_second": sum(seen) / seconds,
        "step_seconds": seconds / work.timed_steps,
        "flops_per_second": trained * forward_flops(seen) / seconds,
    }


if __name__ == "__main__":
    main()
