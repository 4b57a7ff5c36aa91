"""What only a GPU can show: native bf16 and fp16, DDP and FSDP2 over NCCL, and resuming there."""

from __future__ import annotations

import pytest
import torch

from finetune.errors import PreemptedError
from finetune.optimizers import AdamW
from finetune.policies import Checkpointing
from finetune.precision import Precision
from finetune.schedules import Constant
from tests.runs import STRATEGIES, digest, image_task, run, text_task, weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
LAST = Checkpointing(keep_best=0)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_half_precision_learns_what_fp32_learns(tmp_path, name):
    settings = {"optimizer": AdamW(lr=3e-3), "schedule": Constant(), "length": "24 steps", "checkpoint": LAST}
    task = image_task(tmp_path)
    half = run(task, precision=Precision(name=name), **settings).metrics["validation"]["loss"]
    assert half == pytest.approx(run(task, **settings).metrics["validation"]["loss"], abs=0.1)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_trains(tmp_path, strategy):
    result = run(text_task(tmp_path), strategy=STRATEGIES[strategy])
    assert next(result.model.parameters()).is_cuda


def test_resume_is_exact(tmp_path):
    """In deterministic mode: cuDNN and cuBLAS may choose other kernels otherwise."""
    task = text_task(tmp_path)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        whole = run(task, output_dir=str(tmp_path / "whole"))
        with pytest.raises(PreemptedError):
            run(task, output_dir=str(tmp_path / "cut"), stop_at=5)
        resumed = run(task, output_dir=str(tmp_path / "cut"), existing="resume")
    finally:
        torch.use_deterministic_algorithms(False)
    assert digest(weights(resumed.model)) == digest(weights(whole.model))
