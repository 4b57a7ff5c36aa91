"""Data maps: how training went for each example, written down for a later run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError
from .base import Output, Seen, Task
from .wrapping import (
    base_records,
    base_score,
    base_splits,
    load_base_model,
    load_base_split,
    of_base,
    refuse_inside,
    updated_by_base,
    without_effect,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.store import Batch
    from ..progress import Progress

_PROBABILITY, _CORRECT = "data_map.probability", "data_map.correct"
_KEPT = ("times", "sum", "squares", "correct", "last", "forgotten")  # of each example, (examples,) float64


@dataclass(frozen=True, kw_only=True)
class DataMap:
    """A task of classes that notes how the model sees each example whenever it trains on it; training stays as it is.

    The run folder gets ``data_map.safetensors``, (examples,) float32 in the order of the training split, and
    ``data_map.json``, which names the data. A curriculum of a later run can go by it:

    - ``confidence``: mean over the epochs of the probability of the label;
    - ``variability``: its standard deviation;
    - ``correctness``: share of the times that the label was the likeliest class;
    - ``forgetting``: how often it no longer was, having been so the time before (Toneva et al. 2019); for an example
      that was never learned the number of times that it was seen, which is more than any other can have.

    NaN for an example that was never drawn. Probabilities are those of the training forward, with dropout and random
    views, as in Swayamdipta et al. 2020 (arXiv 2009.10795). Five epochs or so make a map; after a single one
    ``variability`` is 0 throughout.

    Args:
        base: The task.
    """

    name: Literal["data_map"] = "data_map"
    base: Task

    __pydantic_config__ = {"extra": "forbid"}

    load_model = load_base_model
    splits = base_splits
    load_split = load_base_split
    score = base_score

    def __post_init__(self) -> None:
        refuse_inside(self, ("data_map",))

    def __getattr__(self, name: str) -> Any:
        return of_base(self, name)

    def forward(self, model: nn.Module, batch: Batch, progress: Progress) -> Output:
        """As ``base`` has it; in training with notes.

        Raises:
            ConfigError: Examples do not have one class each.
        """
        output = self.base.forward(model, batch, progress)
        if not model.training:
            return output
        logits, labels = output.logits.detach().float(), batch["labels"]
        if labels.dim() != 1 or labels.is_floating_point() or len(logits) != len(labels):
            inside = getattr(self.base, "name", type(self.base).__name__)
            raise ConfigError(
                f"task: data_map is of examples with one class each, which {inside} does not give. "
                "Leave the wrapper out."
            )
        probability = logits.softmax(1).gather(1, labels[:, None])[:, 0]
        is_correct = (logits.argmax(1) == labels).float()
        return output._replace(notes={**output.notes, _PROBABILITY: probability, _CORRECT: is_correct})

    def updated(self, remembered: Mapping[str, Tensor], seen: Seen, progress: Progress) -> dict[str, Tensor]:
        """Counts and sums of each example.

        One that is in an update twice is counted twice; it is learned if its label was the likeliest both times.
        """
        import torch

        def each(values: Tensor) -> Tensor:
            nothing = torch.zeros(seen.num_examples, dtype=torch.float64, device=values.device)
            return nothing.index_add(0, seen.ids, values)

        probability, correct = seen.notes[_PROBABILITY], seen.notes[_CORRECT]
        now = {"times": each(torch.ones_like(correct)), "sum": each(probability), "squares": each(probability**2)}
        now["correct"] = each(correct)
        is_seen, is_correct = now["times"] > 0, now["correct"] == now["times"]
        before = {key: remembered.get(f"data_map.{key}", torch.zeros_like(now["times"])) for key in _KEPT}
        found = {key: before[key] + now[key] for key in now}
        found["forgotten"] = before["forgotten"] + (is_seen & ~is_correct & (before["last"] > 0))
        found["last"] = torch.where(is_seen, is_correct.double(), before["last"])
        return {
            **updated_by_base(self, remembered, seen, progress),
            **{f"data_map.{key}": tensor for key, tensor in found.items()},
        }

    def records(self, remembered: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """The map, as ``data_map``; nothing of a run without updates."""
        found = base_records(self, remembered)
        if "data_map.times" not in remembered:
            return found
        kept = {key: remembered[f"data_map.{key}"].cpu() for key in _KEPT}
        times = kept["times"]
        confidence = kept["sum"] / times  # 0/0 is NaN, which says that it was never drawn
        variability = (kept["squares"] / times - confidence**2).clamp(min=0).sqrt()
        forgetting = kept["forgotten"].where(kept["correct"] > 0, times).where(times > 0, confidence)
        tensors = {"confidence": confidence, "variability": variability}
        tensors |= {"correctness": kept["correct"] / times, "forgetting": forgetting}
        return {**found, "data_map": {name: tensor.float() for name, tensor in tensors.items()}}

    def without_effect(self, progress: Progress) -> list[str]:
        """What is set and changes nothing in a run."""
        found = without_effect(self.base, progress)
        if progress.total_steps < 2 * progress.steps_per_epoch:
            found.append("task: data_map needs two epochs or more; in this run most examples are seen once")
        return found
