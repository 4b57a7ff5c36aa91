"""Our fused steps against torch's own, and what they do with a factor and with an update that must not be applied."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from finetune.fused import FusedAdamW, FusedSGD
from tests.distributed.two_ranks import on_ranks

SHAPES = ((3, 4), (4,), (5, 2), (1,), (2, 2))
SETTINGS = ({"lr": 0.1, "weight_decay": 0.2}, {"lr": 0.1, "weight_decay": 0.0}, {"lr": 0.03, "weight_decay": 0.2})
KINDS = {
    "adamw": (lambda groups: FusedAdamW(groups, fused=True), torch.optim.AdamW),
    "sgd": (lambda groups: FusedSGD(groups, momentum=0.9, fused=True), lambda g: torch.optim.SGD(g, momentum=0.9)),
    "plain sgd": (lambda groups: FusedSGD(groups, fused=True), torch.optim.SGD),
}


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def groups_of(made: list[torch.nn.Parameter]) -> list[dict]:
    """Five groups of one parameter: the first, fourth and fifth are set alike."""
    settings = (SETTINGS[0], SETTINGS[1], SETTINGS[2], SETTINGS[0], SETTINGS[0])
    return [{"params": [p], **setting} for p, setting in zip(made, settings, strict=True)]


def give_gradients(made: list[torch.nn.Parameter], step: int, *, factor: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(step + 1)
    for number, parameter in enumerate(made):
        gradient = torch.randn(parameter.shape, generator=generator) * factor
        parameter.grad = None if number == 3 and step < 2 else gradient  # one begins later than the others


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1.0, 8.0])
def test_steps_equal_those_of_torch(kind, factor):
    """Also where every gradient is too large by a factor, which ``grad_scale`` divides out."""
    ours, theirs = parameters(), parameters()
    fused, plain = KINDS[kind][0](groups_of(ours)), KINDS[kind][1](groups_of(theirs))
    for step in range(5):
        give_gradients(ours, step, factor=factor)
        give_gradients(theirs, step)
        fused.grad_scale = torch.tensor(factor)
        fused.step()
        plain.step()
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    for one, other in zip(ours, theirs, strict=True):
        assert fused.state[one].keys() == plain.state[other].keys() - {
            name for name, value in plain.state[other].items() if value is None
        }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [0, 2])
def test_an_update_that_is_not_applied_changes_nothing(kind, step):
    """Also the first: momentum is defined after it."""
    ours, theirs = parameters(), parameters()
    made, reference = KINDS[kind][0](groups_of(ours)), KINDS[kind][0](groups_of(theirs))
    for number in range(4):
        if number == step:
            for parameter in ours:
                parameter.grad = torch.full_like(parameter, float("nan"))
            made.found_inf = torch.tensor(1.0)
            made.step()
            del made.found_inf
        for optimizer, held in ((made, ours), (reference, theirs)):
            give_gradients(held, number)
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
        assert all(torch.equal(made.state[one][name], value) for name, value in reference.state[other].items())


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "kernel"), [("adamw", "_fused_adamw_"), ("sgd", "_fused_sgd_")])
def test_groups_that_are_set_alike_are_one_call(kind, kernel):
    made = parameters()
    optimizer = KINDS[kind][0](groups_of(made))
    give_gradients(made, 2)
    with Calls() as calls:
        optimizer.step()
    assert calls.counts[kernel] == len(SETTINGS) < len(SHAPES)


@pytest.mark.parametrize("kind", KINDS)
def test_sharded_parameters_are_updated_as_whole_ones(kind):
    """FSDP2's tensors, cut over two ranks, and one too short to be cut."""

    def trained(*, sharded: bool):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import Shard, distribute_tensor

        held = parameters()
        if sharded:
            mesh = init_device_mesh("cpu", (2,))
            held = [torch.nn.Parameter(distribute_tensor(p.detach(), mesh, [Shard(0)])) for p in held]
        optimizer = KINDS[kind][0](groups_of(held))
        for step in range(3):
            whole = parameters()
            give_gradients(whole, step, factor=4.0)
            for parameter, source in zip(held, whole, strict=True):
                gradient = source.grad
                if sharded and gradient is not None:
                    gradient = distribute_tensor(gradient, mesh, [Shard(0)])
                parameter.grad = gradient
            optimizer.grad_scale = torch.tensor(4.0)
            optimizer.step()
        states = [value for p in held for _, value in sorted(optimizer.state[p].items())]
        return [t.full_tensor() if hasattr(t, "full_tensor") else t.detach() for t in [*held, *states]]

    expected = trained(sharded=False)
    for found in on_ranks(lambda: trained(sharded=True)):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
