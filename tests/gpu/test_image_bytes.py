"""Images that are scaled on a GPU: the same floats as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune.data.loading import updates
from finetune.data.store import Draws, moved
from tests.runs import image_task

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("augment", ["none", "standard"])
def test_bytes_become_the_same_floats_there(tmp_path, augment):
    store = image_task(tmp_path, augment=augment).load_split("train")
    draws = Draws(np.arange(9), seed=3)
    device = torch.device("cuda")
    for (batch,) in updates(store, lambda step: [draws], steps=range(2), workers=0, device=device):
        assert batch["pixel_values"].dtype == torch.uint8
        found = moved(batch, device)
        assert found["pixel_values"].is_cuda and "pixel_table" not in found
        assert torch.equal(found["pixel_values"].cpu(), store.batch(draws)["pixel_values"])
