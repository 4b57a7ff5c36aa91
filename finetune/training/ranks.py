"""Values that all processes share: sums, rows by rank, and rank 0's word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import FinetuneError, RankLostError

T = TypeVar("T")


class Ranks:
    """The processes of a run, or the only one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        joined = dist.is_available() and dist.is_initialized()
        self.count = dist.get_world_size() if joined else 1
        self.index = dist.get_rank() if joined else 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.index == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, equal on each."""
        if self.count == 1:
            return tensor
        total = tensor.to(self.device).clone()
        dist.all_reduce(total)
        return total

    def rows(self, local: np.ndarray) -> np.ndarray:
        """The rows of every rank, rank after rank; (rows of all, ...) from (own rows, ...)."""
        if self.count == 1:
            return local
        counts = torch.zeros(self.count, dtype=torch.int64, device=self.device)
        counts[self.index] = len(local)
        dist.all_reduce(counts)
        most = int(counts.max())
        padded = np.zeros((most, *local.shape[1:]), dtype=local.dtype)
        padded[: len(local)] = local
        mine = torch.from_numpy(padded).to(self.device)
        parts = [torch.empty_like(mine) for _ in range(self.count)]
        dist.all_gather(parts, mine)
        return np.concatenate([part[:count].cpu().numpy() for part, count in zip(parts, counts.tolist(), strict=True)])

    def first(self, value: Any) -> Any:
        """Rank 0's value on every rank, so that a decision is made once."""
        if self.count == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0, device=self.device if self.device.type != "cpu" else None)
        return held[0]

    def tensor_of_first(self, tensor: Tensor) -> Tensor:
        """Rank 0's values on every rank, bit for bit, from a contiguous tensor of one shape and type on each."""
        if self.count > 1 and tensor.numel():
            raw = tensor.reshape(-1).view(torch.uint8)  # of bytes, as not every backend sends every type
            sent = raw.to(self.device)
            dist.broadcast(sent, src=0)
            if not self.is_first:
                raw.copy_(sent)
        return tensor

    def on_first(self, work: Callable[[], T]) -> T:
        """Rank 0's result of ``work`` on every rank, or its fault raised on every rank.

        Raises:
            FinetuneError: As ``work`` raised it on rank 0.
            RankLostError: On the other ranks, of anything else that it raised.
        """
        outcome: tuple[T | None, FinetuneError | None] = (None, None)
        own: Exception | None = None
        if self.is_first:
            try:
                outcome = (work(), None)
            except FinetuneError as error:
                own, outcome = error, (None, error)
            except Exception as error:  # or they would wait until this process is gone
                own, outcome = error, (None, RankLostError(_failed(error)))
        value, fault = self.first(outcome)
        if own is not None:
            raise own
        if fault is not None:
            fault.is_told = True
            raise fault
        result: T = value
        return result


def _failed(error: Exception) -> str:
    return f"another process of this run has failed ({type(error).__name__}). Its own output says why."
