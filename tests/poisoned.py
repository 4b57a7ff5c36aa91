"""Tasks in which something goes wrong at chosen updates: a value that is no number, or memory that runs out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from finetune.training.sharding import local
from tests.runs import digest, weights

PLACES = ("input", "activation", "loss", "gradient", "parameter")
WEIGHT = "classifier.weight"  # the one that is spoiled where the place is a parameter
NAN = float("nan")


def here(rank: int | None) -> bool:
    """Whether this process is that rank; None: each is."""
    return rank is None or int(os.environ.get("RANK", "0")) == rank


@dataclass(frozen=True)
class Poisoned:
    """A NaN at the first example of each micro-batch.

    Args:
        task: Wrapped; of texts.
        place: One of ``PLACES``; an input is what a text is embedded as.
        steps: Updates.
        rank: On which; None: on each.
    """

    task: Any
    place: str
    steps: tuple[int, ...]
    rank: int | None = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def forward(self, model: nn.Module, batch: dict[str, Tensor], progress: Any) -> Any:
        if progress.step not in self.steps or not model.training or not here(self.rank):
            return self.task.forward(model, batch, progress)
        norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
        if self.place in ("input", "activation"):
            hook = norms[0 if self.place == "input" else -1].register_forward_hook(lambda *given: spoiled(given[2]))
            try:
                return self.task.forward(model, batch, progress)
            finally:
                hook.remove()
        if self.place == "parameter":
            named = {name.split("model.")[-1]: weight for name, weight in model.named_parameters()}
            with torch.no_grad():
                local(named[WEIGHT]).view(-1)[:1] = NAN
            return self.task.forward(model, batch, progress)
        output = self.task.forward(model, batch, progress)
        if self.place == "loss":
            return output._replace(losses=spoiled(output.losses[:, None])[:, 0])
        output.logits.register_hook(spoiled)
        return output


def spoiled(tensor: Tensor) -> Tensor:
    """A copy that begins with a NaN."""
    found = tensor.clone()
    found.view(-1)[0] = NAN
    return found


@dataclass(frozen=True)
class Watched:
    """What a task is given at each update, before whatever goes wrong in it.

    Args:
        task: Wrapped.
        weights: By step, their digest, once it was seen.
        remembered: The same, of what the task remembers.
    """

    task: Any
    weights: dict[int, str]
    remembered: dict[int, str]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def forward(self, model: nn.Module, batch: dict[str, Tensor], progress: Any) -> Any:
        if model.training:
            self.weights[progress.step] = digest(weights(model))
            self.remembered[progress.step] = digest(progress.remembered)
        return self.task.forward(model, batch, progress)


LACKING: dict[str, Callable[[], Exception]] = {
    "device": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    "python": MemoryError,
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
}


@dataclass(frozen=True)
class Tight:
    """Memory for so many examples in a forward, and no more.

    Args:
        task: Wrapped.
        most: Examples, of weight 1.
        rank: On which; None: on each.
        since: First update at which it is so.
        kind: Of ``LACKING``.
        when: ``before`` the model, ``after`` it, or late in the ``backward``.
        evaluates: Whether it is so in evaluations, and not in training.
    """

    task: Any
    most: int
    rank: int | None = None
    since: int = 0
    kind: str = "device"
    when: str = "before"
    evaluates: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def forward(self, model: nn.Module, batch: dict[str, Tensor], progress: Any) -> Any:
        is_now = progress.step >= self.since and model.training != self.evaluates and here(self.rank)
        if not is_now or int((batch["weights"] > 0).sum()) <= self.most:
            return self.task.forward(model, batch, progress)
        if self.when == "before":
            raise LACKING[self.kind]()
        if self.when == "after":
            self.task.forward(model, batch, progress)
            raise LACKING[self.kind]()
        embedded = next(module for module in model.modules() if isinstance(module, nn.LayerNorm))
        hook = embedded.register_forward_hook(lambda *given: given[2].register_hook(self._fail) and None)
        try:
            return self.task.forward(model, batch, progress)
        finally:
            hook.remove()

    def _fail(self, gradient: Tensor) -> None:
        raise LACKING[self.kind]()
