from __future__ import annotations

import pytest
import torch

from finetune.losses import cross_entropy, squared_error


def test_cross_entropy_is_the_negative_log_probability_of_each_label():
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1, 0])
    probabilities = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = torch.stack([-probabilities[item, label].log() for item, label in enumerate(labels)])
    torch.testing.assert_close(cross_entropy(logits, labels), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_before_anything_overflows(dtype):
    wide = torch.tensor([[300.0]], dtype=dtype)
    assert squared_error(wide, torch.tensor([-300.0])).item() == 360_000.0  # above 65504, float16's largest
    logits = torch.tensor([[12.0, -1.0, 0.5]], dtype=dtype)
    loss = cross_entropy(logits, torch.tensor([0]))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cross_entropy(logits.double(), torch.tensor([0])).float())


def test_float64_stays():
    assert cross_entropy(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1])).dtype == torch.float64
    assert squared_error(torch.zeros(1, 1, dtype=torch.float64), torch.tensor([1.0])).dtype == torch.float64


def test_squared_error_is_one_number_per_item():
    losses = squared_error(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0.0, 2.0, 1.0]))
    assert losses.tolist() == [1.0, 0.0, 9.0]  # (items, items) if the columns broadcast


def test_squared_error_refuses_several_outputs():
    with pytest.raises(AssertionError, match="one output per item"):
        squared_error(torch.zeros(3, 2), torch.zeros(3))


def test_no_items_is_no_loss():
    assert cross_entropy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).shape == (0,)
    assert squared_error(torch.zeros(0, 1), torch.zeros(0)).shape == (0,)
