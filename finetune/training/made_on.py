"""Where a checkpoint was made, as far as the last bits of what comes after it depend on that."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from ..plan_document import differences
from .placement import Placement
from .prepare import Prepared


class MadeOn(NamedTuple):
    """What no plan asks for, and sums are rounded by: kept with a checkpoint, and compared on resume."""

    ranks: int
    sharded: bool
    threads: int
    device: str
    torch: str
    micro_batch: str  # also how draws of dropout fall on examples

    @classmethod
    def from_document(cls, document: Any) -> MadeOn:
        """As a checkpoint has it.

        Raises:
            ValueError: It is nothing of the kind.
        """
        kinds = {"ranks": int, "sharded": bool, "threads": int, "device": str, "torch": str, "micro_batch": str}
        if not isinstance(document, Mapping) or {key: type(value) for key, value in document.items()} != kinds:
            raise ValueError(f"made_on: expected {', '.join(kinds)}")
        return cls(**document)

    def told_of(self, before: MadeOn, *, step: int) -> str | None:
        """What a user is told who goes on here from a checkpoint that was made there; None where that is exact."""
        changes = differences(before._asdict(), self._asdict())
        if not changes:
            return None
        return (
            f"the checkpoint of step {step} was made elsewhere ({'; '.join(changes)}): the run goes on from it, but "
            "that it ends bit for bit as it would have there is not promised"
        )


def made_here(prepared: Prepared, placement: Placement) -> MadeOn:
    """Where this run is."""
    is_cuda = placement.device.type == "cuda"
    amount, unit = prepared.micro_batch.amount, prepared.micro_batch.unit
    most = prepared.config.batch_size if unit == "examples" else amount  # more than an update has is no other cut
    kernels = torch.backends.cpu.get_cpu_capability()  # which vectors sums are cut into, e.g. AVX512
    return MadeOn(
        ranks=placement.ranks.count,
        sharded=placement.is_sharded,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name() if is_cuda else f"{platform.machine()} CPU, {kernels}",
        torch=str(torch.__version__),
        micro_batch=f"{min(amount, most)} {unit}",
    )
