"""L2-SP: a penalty on the distance from the starting point."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Gt, Lt

from .base import Output, Task
from .wrapping import base_score, base_splits, keep_base_tokens, load_base_split, of_base

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.store import Batch
    from ..models.loaded import LoadedModel
    from ..progress import Progress

_WRAPPINGS = ("module.", "model.")  # before the names of a model's parameters: DDP's, and our forward's


@dataclass(frozen=True, kw_only=True)
class L2SP:
    """A task whose loss holds weights at their starting point (Li et al. 2018, arXiv 1802.01483, section 3).

    ``alpha / 2 |w - w0|^2`` over what the checkpoint supplied and trains now, and ``beta / 2 |w|^2`` over what is
    new. It is added to the loss of every item, so that the mean of an update holds it once, however the update is
    cut. The loss of evaluations is without it. It takes the place of weight decay: set ``optimizer.weight_decay: 0``.

    Where tasks are wrapped several times, this is the outermost.

    Args:
        base: The task.
        alpha: Strength towards the start; the paper searches powers of ten from 1e-3 to 1.
        beta: Strength towards 0 of new weights; the paper's is 0.01.
    """

    name: Literal["l2_sp"] = "l2_sp"
    base: Task
    alpha: Annotated[float, Gt(0), Lt(float("inf"))] = 0.01
    beta: Annotated[float, Ge(0), Lt(float("inf"))] = 0.01

    __pydantic_config__ = {"extra": "forbid"}

    splits = base_splits
    load_split = load_base_split
    score = base_score
    keep_tokens_in = keep_base_tokens

    def __getattr__(self, name: str) -> Any:
        return of_base(self, name)

    @cached_property
    def _start(self) -> _Start:
        return _Start()

    def load_model(self) -> LoadedModel:
        """As ``base`` has it; what it gives is the start."""
        loaded = self.base.load_model()
        self._start.take(loaded.module, new=loaded.new)
        return loaded

    def forward(self, model: nn.Module, batch: Batch, progress: Progress) -> Output:
        """As ``base`` has it; in training with the penalty in each loss."""
        output = self.base.forward(model, batch, progress)
        if output.losses is None or not model.training:
            return output
        penalty = self.penalty(model)
        return output._replace(losses=output.losses + penalty.to(output.losses.dtype))

    def penalty(self, model: nn.Module) -> Tensor:
        """The penalty on what trains now, ()."""
        from .distance import squared_distance

        known, new = self._start.of(model)
        found = self.alpha / 2 * squared_distance(*known)
        return found + (self.beta / 2 * squared_distance(*new)).to(found.device) if new[0] else found


def unpenalised(task: Task) -> Task:
    """The task inside the penalty, which would reach weights that no forward reads."""
    return task.base if isinstance(task, L2SP) else task


class _Pairs(NamedTuple):
    weights: list[Tensor]
    starts: list[Tensor]


class _Start:
    """The weights that a model was loaded with."""

    def __init__(self) -> None:
        self._weights: dict[str, Tensor] = {}
        self._new: frozenset[str] = frozenset()

    def take(self, module: nn.Module, *, new: Collection[str]) -> None:
        """Remember the weights of the checkpoint."""
        self._new = frozenset(new)
        self._weights = {
            name: parameter.detach().clone() for name, parameter in module.named_parameters() if name not in self._new
        }

    def of(self, model: nn.Module) -> tuple[_Pairs, _Pairs]:
        """What trains now with its start: what the checkpoint supplied, and what is new, whose start is 0."""
        known, new = _Pairs([], []), _Pairs([], [])
        for wrapped, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            name = _plain(wrapped)
            pairs = new if name in self._new else known
            pairs.weights.append(parameter)
            pairs.starts.append(self._start_of(name, parameter))
        return known, new

    def _start_of(self, name: str, parameter: Tensor) -> Tensor:
        """In the format and on the device of the parameter, converted once."""
        start = self._weights.get(name)
        if start is None or (start.dtype, start.device) != (parameter.dtype, parameter.device):
            start = parameter.new_zeros(()) if name in self._new else self._weights[name].to(parameter)
            self._weights[name] = start
        return start


def _plain(name: str) -> str:
    for wrapping in _WRAPPINGS:
        name = name.removeprefix(wrapping)
    return name
