"""Device, processes and sharding, through Accelerate; and whether what was launched is what runs."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.nn.parallel import DistributedDataParallel

from ..errors import LaunchError
from ..precision import Precision, accelerate_word, resolved, torch_dtype
from .lost import TIMEOUT
from .ranks import Ranks

# Buffers are constants in these models; torch 2.15 renamed the argument that keeps DDP from sending them each step.
_UNSYNCED_BUFFERS: dict[str, Any] = {
    name: False
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
}
if len(_UNSYNCED_BUFFERS) > 1:
    del _UNSYNCED_BUFFERS["broadcast_buffers"]
_FSDP_ON_CPU = "FSDP was asked for, but Accelerate ignores it on a CPU; use accelerate_configs/ddp_cpu.yaml"
_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # where Accelerate looks
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_OVERRIDES = ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_USE_FSDP")


class Placement:
    """Where a run runs: one device and format per process, and how the processes share a model."""

    def __init__(self, accelerator: Accelerator, precision: str) -> None:
        self._accelerator = accelerator
        self.precision = precision
        self.device: torch.device = accelerator.device
        self.ranks = Ranks(self.device)
        self.is_sharded = accelerator.distributed_type == DistributedType.FSDP

    def check_phases(self, count: int) -> None:
        """Refuse a course of several phases under FSDP1, which cannot change what trains.

        Raises:
            LaunchError: It is FSDP1.
        """
        if self.is_sharded and count > 1 and self._accelerator.state.fsdp_plugin.fsdp_version != 2:
            raise LaunchError(
                "FSDP1 cannot change what trains during a run; set fsdp_version: 2 "
                "(accelerate to-fsdp2 converts a file)"
            )

    def place(
        self, forward: nn.Module, optimizer: torch.optim.Optimizer, *, blocks: Sequence[nn.Module]
    ) -> torch.optim.Optimizer:
        """Move the model to its device, or shard it by block with its optimizer.

        Args:
            forward: The wrapped model; changed in place.
            optimizer: Over its parameters, all groups of the plan.
            blocks: The trunk; FSDP2 shards each. The class is named here and not in the YAML, because the
                default (``_no_split_modules``) crashes on BERT and ViT and shards nothing on others.

        Returns:
            The torch optimizer itself: what is set on Accelerate's wrapper is ignored.
        """
        forward.to(self.device)
        if not self.is_sharded:
            return optimizer
        plugin = self._accelerator.state.fsdp_plugin
        plugin.mixed_precision_policy = MixedPrecisionPolicy()  # autocast is ours; weights and reductions stay fp32
        plugin.transformer_cls_names_to_wrap = sorted({type(block).__name__ for block in blocks})
        _, wrapped = self._accelerator.prepare(forward, optimizer)
        return wrapped.optimizer

    def wrap(self, forward: nn.Module) -> nn.Module:
        """The module to call in a phase, after ``requires_grad`` is set.

        DDP builds its buckets from what trains at this moment, so it is built anew at every phase change;
        a weight that is unfrozen under an old wrapper is never reduced, and the ranks drift apart unseen.
        """
        if self.ranks.count == 1 or self.is_sharded:
            return forward
        # Without device_ids: with them DDP moves every tensor of a batch, and some are read on the CPU.
        return DistributedDataParallel(forward, gradient_as_bucket_view=True, **_UNSYNCED_BUFFERS)

    def autocast(self) -> AbstractContextManager[object]:
        """The format of forward passes. Ours, because Accelerate's is silently off for fp16 on a CPU."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch_dtype(self.precision))

    @staticmethod
    def unreduced(wrapped: nn.Module) -> AbstractContextManager[object]:
        """Leave gradients on their rank for all micro-batches of an update but the last."""
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()


@contextmanager
def placed(precision: Precision) -> Iterator[Placement]:
    """Start Accelerate for one run, and leave its global state as it was found.

    Raises:
        LaunchError: What the launcher asked for is not what would run.
    """
    environment = {name: os.environ.get(name) for name in _OVERRIDES}
    launcher = os.environ.get("ACCELERATE_MIXED_PRECISION")
    shared = {kind: dict(kind._shared_state) for kind in (PartialState, AcceleratorState, GradientState)}
    _refuse_unsupported()
    AcceleratorState._shared_state.clear()  # the caller's own Accelerator, if any, is put back below
    GradientState._shared_state.clear()
    cpu = not torch.cuda.is_available()  # the sums of an update need fp64, which other accelerators lack
    try:
        device = torch.device("cpu" if cpu else "cuda")
        name = resolved(precision, launcher=launcher, device=device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Accelerate on thread counts; ours are recorded
            accelerator = _accelerator(cpu=cpu, name=name)
        _check(accelerator)
        yield Placement(accelerator, name)
    finally:
        AcceleratorState._reset_state(reset_partial_state=False)
        GradientState._reset_state()
        if Ranks(torch.device("cpu")).count == 1:  # a process group outlives one run; its state must too
            PartialState._reset_state()
        for kind, state in shared.items():
            kind._shared_state.update(state)
        for key, value in environment.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _refuse_unsupported() -> None:
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
    if steps not in (None, "1"):
        raise LaunchError(
            f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS={steps} is set; micro-batches follow from batch_size and "
            "micro_batch here. Unset it."
        )
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise LaunchError("DeepSpeed is not supported; use accelerate_configs/ddp.yaml or fsdp2.yaml")
    if os.environ.get("WORLD_SIZE", "1") != "1" and not os.environ.keys() & {*_RANKS}:
        raise LaunchError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} is set without RANK: a run would wait for processes that nobody "
            "starts. Unset it, or start the run by accelerate launch"
        )
    # Accelerate's launcher of one process: it leaves the address for several, and not how many those are (1.15).
    if {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys() and not os.environ.keys() & {*_WORLD_SIZES}:
        raise LaunchError(
            "accelerate launch was asked for several processes, or machines, and started one. Use "
            "accelerate launch --config_file accelerate_configs/ddp_cpu.yaml (or ddp.yaml on GPUs); "
            "if one is what you want, --num_processes 1, and MASTER_ADDR unset"
        )


def _accelerator(*, cpu: bool, name: str) -> Accelerator:
    try:
        return Accelerator(
            cpu=cpu,
            mixed_precision=accelerate_word(name),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=TIMEOUT)],
        )
    except RuntimeError as fault:
        if cpu and _is_fsdp_asked():  # its FSDP1 looks for a GPU before anything else
            raise LaunchError(_FSDP_ON_CPU) from fault
        raise


def _is_fsdp_asked() -> bool:
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def _check(accelerator: Accelerator) -> None:
    """Compare what was asked for with what came."""
    asked = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != asked:
        raise LaunchError(
            f"{asked} processes were launched, but each would train alone (Accelerate sees "
            f"{accelerator.num_processes}). On a machine without GPUs use "
            "accelerate launch --config_file accelerate_configs/ddp_cpu.yaml"
        )
    sharded = accelerator.distributed_type == DistributedType.FSDP
    if _is_fsdp_asked() and not sharded:
        raise LaunchError(_FSDP_ON_CPU)
