"""Whether our walk through a model's parts computes what the model's own forward computes, asked before it is used."""

from __future__ import annotations

import numpy as np
import torch

from ..data.loading import weighted_batch
from ..data.store import Draw, Store
from ..encoders import Forward
from ..prefix.planning import as_model_takes

_TOLERANCE = 1e-3  # of the largest logit: rounding in fp32 is far below, another computation far above


def check_forward(forward: Forward, store: Store) -> None:
    """Run a short, a middling and a long example both ways; where they differ the model's own forward is taken.

    A new version of a library, or code that a user put into a model, costs the run its speed and not its truth.

    Args:
        forward: Not yet placed on a device.
        store: Of the training split.
    """
    if forward.family is None:
        return
    order = np.argsort(store.lengths, kind="stable")
    draws = [Draw(0, 0, int(order[at])) for at in {0, len(order) // 2, len(order) - 1}]
    modes = {module: module.training for module in forward.modules()}
    forward.eval()
    try:
        with torch.no_grad():
            batch = as_model_takes(weighted_batch(store, draws), forward)
            if forward.takes_text and "lengths" not in batch:
                return forward.give_up("its batches are rectangles already")
            expected, found = forward.plain(batch), forward(batch)
        if not torch.allclose(found, expected, rtol=0.0, atol=_TOLERANCE * float(expected.abs().max())):
            apart = float((found - expected).abs().max())
            forward.give_up(f"its forward gives something else than its parts in turn (by {apart:.1e})")
    except (AttributeError, TypeError, RuntimeError, ValueError, IndexError, KeyError) as fault:
        forward.give_up(f"its parts cannot be called in turn ({type(fault).__name__}: {fault})")
    finally:
        for module, training in modes.items():
            module.training = training
