"""What only a GPU can show of bad updates: figures that are read late, and memory that really runs out."""

from __future__ import annotations

import pytest
import torch

from finetune.errors import DivergedError
from finetune.policies import Checkpointing, NonFinite
from tests.poisoned import Poisoned, Tight
from tests.runs import digest, history, run, text_task, weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_a_stop_names_what_was_bad(tmp_path):
    with pytest.raises(DivergedError, match="update 3: .*The first gradient that is not finite is that of"):
        run(Poisoned(text_task(tmp_path), "gradient", (3,)), output_dir=str(tmp_path / "run"))


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_a_run_goes_on(tmp_path, policy):
    settings = {"checkpoint": Checkpointing(every="2 steps"), "output_dir": str(tmp_path / "run")}
    result = run(Poisoned(text_task(tmp_path), "gradient", (3,)), non_finite=NonFinite(policy), **settings)
    assert result.state.not_finite == (1, 0) and result.state.step == 10
    assert all(bool(tensor.isfinite().all()) for tensor in weights(result.model).values())


class Greedy(Tight):
    """Asks the device for what it does not have."""

    def forward(self, model, batch, progress):
        if model.training and int((batch["weights"] > 0).sum()) > self.most:
            torch.empty(2**50, dtype=torch.uint8, device="cuda")
        return self.task.forward(model, batch, progress)


def test_the_device_s_own_word_is_understood(tmp_path):
    """As figures are read one update late there, two updates are taken back."""
    task = text_task(tmp_path)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        cut = run(task, micro_batch="2 examples")
        found = run(Greedy(task, 3), micro_batch="8 examples", output_dir=str(tmp_path / "run"))
    finally:
        torch.use_deterministic_algorithms(False)
    assert digest(weights(found.model)) == digest(weights(cut.model)) and found.state.halvings == 2
    assert len([line for line in history(tmp_path / "run") if "micro_batch" in line]) == 2
