"""The machine's matrix-product peak, measured in the process whose work is compared with it."""

from __future__ import annotations

import time


def peak_flops(size: int = 0, *, repeats: int = 5) -> float:
    """Operations per second of the fastest of some square products: fp32 on a CPU, bf16 on a GPU.

    Args:
        size: Rows of the matrices; 0: 2048 on a CPU, 8192 on a GPU.
        repeats: Of which the fastest counts.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    size = size or (8192 if on_gpu else 2048)
    kind = {"device": "cuda", "dtype": torch.bfloat16} if on_gpu else {}
    draw = torch.Generator(device="cuda" if on_gpu else "cpu").manual_seed(0)
    first, second = (torch.randn(size, size, generator=draw, **kind) for _ in range(2))
    out = first @ second
    fastest = float("inf")
    for _ in range(repeats):
        if on_gpu:
            torch.cuda.synchronize()
        began = time.perf_counter()
        torch.mm(first, second, out=out)
        if on_gpu:
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * size**3 / fastest
