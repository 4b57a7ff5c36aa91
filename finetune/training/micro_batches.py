"""How much one forward takes: the meaning of ``micro_batch: auto``."""

from __future__ import annotations

import torch

from ..data.sampling import MicroBatch
from ..data.store import Store
from ..errors import ConfigError

_GIB = 2**30
# Examples per forward of a model of at most 150 M parameters, by the device's memory in GiB; a CPU is the last row.
_EXAMPLES = ((70, 256), (35, 128), (20, 64), (10, 32), (0, 16))
_CPU_EXAMPLES = 32
# Larger models: parameters in millions, and what the number above is divided by.
_DIVISORS = ((1_000, 8), (400, 4), (150, 2))


def resolve_micro_batch(text: str, *, device: torch.device, num_parameters: int, store: Store) -> str:
    """``auto`` by a fixed table of device memory and model size; else ``text`` itself, checked.

    Raises:
        ConfigError: Not a micro-batch, or tokens for images.
    """
    if text == "auto":
        return f"{_automatic(device, num_parameters)} examples"
    try:
        micro_batch = MicroBatch(text)
    except ValueError as error:
        raise ConfigError(f"micro_batch: {error}") from None
    if micro_batch.unit == "tokens" and len(store) and int(store.lengths.max()) == 1:
        raise ConfigError(f"micro_batch: {text!r} counts tokens, and images have none; write e.g. '32 examples'")
    return f"{micro_batch.amount} {micro_batch.unit}"


def _automatic(device: torch.device, num_parameters: int) -> int:
    examples = _CPU_EXAMPLES
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / _GIB
        examples = next(count for least, count in _EXAMPLES if memory >= least)
    divisor = next((divisor for least, divisor in _DIVISORS if num_parameters > least * 1e6), 1)
    return max(1, examples // divisor)
