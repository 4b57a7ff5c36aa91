"""Forward and backward of an update, recorded once for each shape of batch and replayed without a word from Python.

A recording reads from and writes to fixed places in memory, among them the weights, which the optimizer changes in
place. Replayed dropout draws from the device's generator as it is seeded at that moment (PyTorch, "CUDA semantics",
on graphs and random numbers), so it drops what it would have dropped otherwise.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..data.store import moved
from .buckets import shape_of

if TYPE_CHECKING:
    from ..data.store import Batch

    LossOf = Callable[[Batch], tuple[Tensor, Tensor, Tensor]]

_SIGHTINGS = 3  # of a shape before it is recorded, which takes about as long as three updates
_MOST = 16  # recordings of a phase
_OFF_BY = 1e-2  # of a gradient's norm: sums in another order stay below in half precision, other dropout does not
_OFF_BY_OF_ALL = 1e-4  # of the norm of all gradients, for one that is nearly nothing


class Recording(NamedTuple):
    """One shape of batch."""

    graph: Any
    inputs: Batch  # on the device: what is read
    results: tuple[Tensor, Tensor, Tensor]  # on the device: what is written, besides the gradients


class Recordings:
    """Those of one phase, on a GPU.

    Args:
        parameters: That train in it.
        device: Where they are.
    """

    def __init__(self, parameters: Sequence[Tensor], *, device: torch.device) -> None:
        self._parameters = list(parameters)
        self._device = device
        self._sightings: Counter[tuple[object, ...]] = Counter()
        self._recordings: dict[tuple[object, ...], Recording] = {}
        self._reached: list[Tensor] = []  # parameters that get a gradient
        self._gradients: list[Tensor] = []  # theirs, in one place for all recordings
        self._shared: tuple[Any, Any, Tensor] | None = None  # memory, stream, and the factor of backward
        self.has_given_up = False

    def is_due(self, batch: Batch) -> bool:
        """Whether to record this batch after it was computed plainly; each call is a sighting of its shape."""
        shape = shape_of(batch)
        self._sightings[shape] += 1
        is_new = shape not in self._recordings and len(self._recordings) < _MOST
        return is_new and not self.has_given_up and self._sightings[shape] >= _SIGHTINGS

    def replay(self, batch: Batch, *, factor: float) -> tuple[Tensor, Tensor, Tensor] | None:
        """Gradients into the parameters; the sum of losses, (), losses and weights, (items,). None: not recorded.

        Args:
            batch: Filled, fixed, on the CPU.
            factor: Of the loss before backward.
        """
        recording = self._recordings.get(shape_of(batch))
        if recording is None:
            return None
        self._run(recording, batch, factor=factor)
        for parameter, gradient in zip(self._reached, self._gradients, strict=True):
            parameter.grad = gradient
        loss, losses, weights = (result.clone() for result in recording.results)  # the next replay writes there
        return loss, losses, weights

    def record(self, batch: Batch, loss_of: LossOf, *, factor: float, random_state: Tensor | None) -> None:
        """Record a batch that was computed plainly just now, and compare; the parameters keep their gradients.

        Whatever goes wrong ends all recording in this phase with a warning, and costs nothing else.

        Args:
            batch: Filled, fixed, on the CPU.
            loss_of: The sum of losses, losses and weights, of a batch on the device.
            factor: Of the loss before backward.
            random_state: Of the device's generator before the plain computation.
        """
        reached = [parameter for parameter in self._parameters if parameter.grad is not None]
        expected = [parameter.grad for parameter in reached if parameter.grad is not None]
        try:
            self._keep_places(reached, expected)
            recording = self._recorded(batch, loss_of)
            assert random_state is not None
            torch.cuda.set_rng_state(random_state, self._device)
            self._run(recording, batch, factor=factor)
            is_same = are_close(self._gradients, expected)
        except Exception as fault:
            self._give_up(reason_of(fault))
            return
        if is_same:
            self._recordings[shape_of(batch)] = recording
        elif is_same is not None:
            self._give_up("a replay gave other gradients than the computation that was recorded")

    def close(self) -> None:
        """Free what recordings hold."""
        self._recordings.clear()
        self._gradients.clear()
        self._reached.clear()
        self._shared = None

    def _keep_places(self, reached: list[Tensor], gradients: list[Tensor]) -> None:
        if self._shared is None:
            self._reached, self._gradients = reached, [torch.empty_like(gradient) for gradient in gradients]
            factor = torch.empty((), device=self._device)
            self._shared = (torch.cuda.graph_pool_handle(), torch.cuda.Stream(self._device), factor)
        if [id(parameter) for parameter in reached] != [id(parameter) for parameter in self._reached]:
            raise RuntimeError("which parameters get a gradient depends on the batch")

    def _recorded(self, batch: Batch, loss_of: LossOf) -> Recording:
        assert self._shared is not None
        pool, stream, factor = self._shared
        inputs = moved(batch, self._device)

        def run() -> tuple[Tensor, Tensor, Tensor]:
            loss, losses, weights = loss_of(inputs)
            found = torch.autograd.grad(loss, self._reached, factor.to(loss.dtype))
            torch._foreach_copy_(self._gradients, list(found))
            return loss.detach(), losses.detach(), weights.detach().clone()

        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            run()  # what libraries set up when they are first called on a stream cannot be recorded
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: the thread that makes batches may go on pinning memory
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            results = run()
        on_device = {name: tensor for name, tensor in inputs.items() if tensor.device.type != "cpu"}
        return Recording(graph, on_device, results)

    def _run(self, recording: Recording, batch: Batch, *, factor: float) -> None:
        assert self._shared is not None
        given = batch if "lengths" in batch else moved(batch, self._device)  # images are scaled there
        for name, place in recording.inputs.items():
            place.copy_(given[name], non_blocking=True)
        self._shared[2].fill_(factor)
        recording.graph.replay()

    def _give_up(self, why: str) -> None:
        self.has_given_up = True
        self.close()
        with suppress(Exception), warnings.catch_warnings():
            # A recording that broke off leaves the generator waiting for its end; an empty one ends it.
            warnings.simplefilter("ignore")
            with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="thread_local"):
                pass
        warnings.warn(f"speed.cuda_graphs: steps are computed without recordings: {why}", stacklevel=3)


def are_close(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool | None:
    """Whether each gradient is the other up to rounding; None where the expected ones are not finite."""
    distances = torch._foreach_norm(torch._foreach_sub(list(found), list(expected)))
    figures = torch.stack([torch.stack(list(distances)), torch.stack(list(torch._foreach_norm(list(expected))))])
    off, norms = figures.double()
    total = norms.square().sum().sqrt()
    if not bool(torch.isfinite(total)):
        return None
    return bool((off <= _OFF_BY * norms + _OFF_BY_OF_ALL * total).all())  # not a number is not close


def reason_of(fault: Exception) -> str:
    """A line of it for a warning: compilers say who failed first, and why below."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    return f"{type(fault).__name__}: {' '.join(lines[:2])}"
