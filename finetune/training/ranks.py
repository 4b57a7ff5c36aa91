"""Values that all processes share: sums, rows by rank, and rank 0's word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import FinetuneError

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

    def on_first(self, work: Callable[[], T]) -> T:
        """Rank 0's result of ``work`` on every rank, or its fault raised on every rank.

        Raises:
            FinetuneError: As ``work`` raised it on rank 0.
        """
        outcome: tuple[T | None, FinetuneError | None] = (None, None)
        if self.is_first:
            try:
                outcome = (work(), None)
            except FinetuneError as error:
                outcome = (None, error)
        value, fault = self.first(outcome)
        if fault is not None:
            raise fault
        result: T = value
        return result
