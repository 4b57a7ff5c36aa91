"""A copy of tensors at one instant, in memory that is made once and used for every save."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .tensors import raw_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_ALIGNMENT = 64  # bytes; a cache line


class Snapshot:
    """Room on the CPU for one copy of what a checkpoint holds; asked for at the first save.

    A copy into memory that was never touched costs the page faults of it too, seven times the copy itself on
    a system of small pages; so the room stays, and is made of huge pages where the system has them.
    """

    def __init__(self) -> None:
        self._room: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    @property
    def num_bytes(self) -> int:
        """The size of the room; 0 before the first save and after ``release``."""
        return 0 if self._room is None else self._room.numel()

    def take(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Copies of dense tensors on any device, which hold until the next call.

        From a GPU they are complete once ``wait`` returns. They are queued on its current stream, so whatever the
        caller has computed next there cannot change them.
        """
        sizes = [
            _aligned(tensor.numel() * tensor.element_size()) for part in tensors.values() for tensor in part.values()
        ]
        device = next((tensor.device for part in tensors.values() for tensor in part.values() if tensor.is_cuda), None)
        room = self._room_of(sum(sizes), pinned=device is not None)
        memory = room.numpy().data
        copies: dict[str, dict[str, Tensor]] = {}
        start = 0
        for stem, part in tensors.items():
            copies[stem] = {}
            for name, tensor in part.items():
                end = start + tensor.numel() * tensor.element_size()
                copies[stem][name] = room[start:end].view(tensor.dtype).view(tensor.shape)
                if tensor.device.type == "cpu":
                    # By memcpy: torch's own copy waits for a team of threads, 4 times as long on busy cores.
                    memory[start:end] = raw_bytes(tensor)
                else:
                    copies[stem][name].copy_(tensor, non_blocking=True)
                start = _aligned(end)
        self._copied = _event(device) if device is not None else None
        return copies

    def wait(self) -> None:
        """Wait until the last copies are complete; may be called from another thread."""
        if self._copied is not None:
            self._copied.synchronize()

    def release(self) -> None:
        """Give the memory back, once nobody holds the copies either."""
        self._room = self._copied = None

    def _room_of(self, size: int, *, pinned: bool) -> Tensor:
        if self._room is None or self._room.numel() < size:
            self._room = None  # before the new one is made: never two of them
            self._room = _pinned(size) if pinned else _paged(size)
        return self._room


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT


def _event(device: torch.device) -> torch.cuda.Event:
    import torch

    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


def _pinned(size: int) -> Tensor:
    """Memory that a GPU writes into by itself; where the system grants none, copies wait for each other."""
    import torch

    try:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)
    except RuntimeError:
        return torch.empty(size, dtype=torch.uint8)


def _paged(size: int) -> Tensor:
    import torch

    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel built without them
        pass
    return torch.frombuffer(memory, dtype=torch.uint8)
