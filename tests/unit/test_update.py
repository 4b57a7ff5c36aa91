"""One update on a model of two layers: what it does to the optimizer, with and without a fused kernel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finetune.fused import FusedAdamW, FusedSGD
from finetune.precision import Precision
from finetune.progress import Progress
from finetune.tasks.base import Output
from finetune.training.placement import placed
from finetune.training.update import Trained, num_unread, update

OPTIMIZERS = {
    "adamw": lambda groups: FusedAdamW(groups, lr=0.1, fused=True),
    "sgd": lambda groups: FusedSGD(groups, lr=0.1, momentum=0.9, fused=True),
    "torch's own": lambda groups: torch.optim.AdamW(groups, lr=0.1, fused=True),
    "not fused": lambda groups: torch.optim.AdamW(groups, lr=0.1),
    "without a factor": lambda groups: torch.optim.RMSprop(groups, lr=0.1),
}


class Squares:
    """Half the squared output of each example; weight 0 or 1 as the batch says. For less than it needs: no memory."""

    def forward(self, model, batch, progress):
        if batch["inputs"].shape[1] < 3:
            raise MemoryError
        outputs = model(batch["inputs"])
        return Output(outputs.square().sum(1) / 2, batch["weights"], outputs)


def model_of(dtype=torch.float32) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def groups_of(model: nn.Sequential) -> list[dict]:
    named = {"head": model[2], "layer.0": model[0]}
    return [{"params": [*m.parameters()], "names": ["w", "b"], "group": name} for name, m in named.items()]


def batch_of(count: int, *, dtype=torch.float32, seed: int = 0) -> dict:
    inputs = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return {"inputs": inputs, "weights": torch.ones(count), "index": torch.arange(count)}


def one(model, optimizer, trained, batches, *, step=0, max_grad_norm=0.0, unread=0, loss_scale=1.0, filler=None):
    with placed(Precision(name="fp32")) as placement:
        return update(
            model,
            optimizer,
            batches,
            trained=trained,
            task=Squares(),
            progress=Progress(step, 10, 5),
            placement=placement,
            batch_size=7,
            loss_scale=loss_scale,
            max_grad_norm=max_grad_norm,
            flags=[0, 1],
            unread=unread,
            filler=filler,
        )


def gradients_by_torch(batches) -> list[torch.Tensor]:
    """Of the mean over all examples."""
    model = model_of()
    outputs = model(torch.cat([batch["inputs"] for batch in batches]))
    (outputs.square().sum(1) / 2).mean().backward()
    return [parameter.grad for parameter in [*model[2].parameters(), *model[0].parameters()]]


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("max_grad_norm", [0.0, 0.1, 100.0])
def test_the_optimizer_steps_with_the_clipped_mean_gradient(kind, max_grad_norm):
    """However it takes the factor in: as torch's clipping and the same optimizer without it would."""
    batches = [batch_of(5), batch_of(3, seed=1)]
    expected = gradients_by_torch(batches)
    reference = model_of()
    other = OPTIMIZERS[kind](groups_of(reference))
    for parameter, gradient in zip([*reference[2].parameters(), *reference[0].parameters()], expected, strict=True):
        parameter.grad = gradient.clone()
    if max_grad_norm:
        torch.nn.utils.clip_grad_norm_(reference.parameters(), max_grad_norm)
    other.step()

    model = model_of()
    optimizer = OPTIMIZERS[kind](groups_of(model))
    stats = one(model, optimizer, Trained(optimizer), batches, max_grad_norm=max_grad_norm, loss_scale=4.0).read()
    for parameter, moved in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, moved, rtol=1e-5, atol=1e-6)
        assert parameter.grad is None
    norms = [torch.linalg.vector_norm(torch.stack([g.norm() for g in part])) for part in (expected[:2], expected[2:])]
    assert stats.grad_norms == pytest.approx({"head": norms[0].item(), "layer.0": norms[1].item()}, rel=1e-5)
    assert stats.grad_norm == pytest.approx(sum(norm.item() ** 2 for norm in norms) ** 0.5, rel=1e-5)
    assert (stats.num_items, stats.flags, stats.is_finite, stats.step) == (8, [0, 1], True, 0)
    assert not {"grad_scale", "found_inf"} & vars(optimizer).keys()


@pytest.mark.parametrize("kind", [*OPTIMIZERS][:3])
def test_figures_read_afterwards_are_the_same(kind):
    found = {}
    for unread in (0, 1):
        model = model_of()
        optimizer = OPTIMIZERS[kind](groups_of(model))
        pending = one(model, optimizer, Trained(optimizer), [batch_of(5)], max_grad_norm=0.1, unread=unread)
        found[unread] = [p.detach().clone() for p in model.parameters()], pending.read()
        assert not {"grad_scale", "found_inf"} & vars(optimizer).keys()
    for one_of, other in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(one_of, other, rtol=1e-6, atol=1e-7)
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize(("kind", "unread"), [*((kind, 0) for kind in OPTIMIZERS), ("adamw", 1), ("sgd", 1)])
def test_a_bad_update_changes_nothing_and_names_its_examples(kind, unread):
    model = model_of()
    optimizer = OPTIMIZERS[kind](groups_of(model))
    trained = Trained(optimizer)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    bad = batch_of(5)
    bad["inputs"][3, 0] = float("nan")
    read = [one(model, optimizer, trained, [bad], unread=unread).read()]
    if unread:  # under way before the first is read
        read.append(one(model, optimizer, trained, [batch_of(4)], unread=unread, step=1).read())
    assert all(torch.equal(p, held) for p, held in zip(model.parameters(), before, strict=True))
    assert not read[0].is_finite and read[0].suspects == [3]
    assert all(stats.is_finite and not stats.suspects for stats in read[1:])


@pytest.mark.parametrize(("kind", "unread"), [*((kind, 0) for kind in OPTIMIZERS), ("adamw", 1), ("sgd", 1)])
@pytest.mark.parametrize("what", ["not finite", "out of memory"])
def test_an_update_that_is_left_out_moves_no_moment_and_no_count(kind, unread, what):
    """Bit for bit, after one that was applied; and the next is what it would have been."""

    def stands():
        state = [(key, value) for each in optimizer.state.values() for key, value in sorted(each.items())]
        return [torch.as_tensor(value).clone() for _, value in state if value is not None] + [
            parameter.detach().clone() for parameter in model.parameters()
        ]

    ends = []
    for is_bad in (True, False):
        model = model_of()
        optimizer = OPTIMIZERS[kind](groups_of(model))
        settings = {"trained": Trained(optimizer), "max_grad_norm": 0.1, "unread": unread}
        one(model, optimizer, batches=[batch_of(5)], **settings)
        if is_bad:
            before, bad = stands(), batch_of(5, seed=1)
            if what == "not finite":
                bad["inputs"][2] = float("inf")
                stats = one(model, optimizer, batches=[bad], **settings).read()
            else:
                short = {**bad, "inputs": bad["inputs"][:, :2]}
                stats = one(model, optimizer, batches=[short], filler=lambda: batch_of(1), **settings).read()
            assert not stats.is_applied and stats.lacks_memory == (what == "out of memory")
            assert all(torch.equal(*pair) for pair in zip(before, stands(), strict=True))
            settings["trained"] = Trained(optimizer)  # as the loop does before it goes on
        one(model, optimizer, batches=[batch_of(4, seed=2)], step=1, **settings)
        ends.append(stands())
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))


def test_the_first_weight_with_a_bad_gradient_is_named():
    """In the order of the groups; none where only the loss is not finite."""
    model = model_of()
    optimizer = OPTIMIZERS["adamw"](groups_of(model))
    bad = batch_of(5)
    model[0].bias.register_hook(lambda gradient: gradient * float("nan"))
    stats = one(model, optimizer, Trained(optimizer), [bad]).read()
    assert (stats.first_bad, stats.is_finite, stats.suspects) == ("b", False, [])
    assert not torch.isfinite(torch.tensor(stats.grad_norms["layer.0"])) and stats.grad_norms["head"] > 0


def test_a_parameter_without_a_gradient_counts_as_zero():
    model = model_of()
    extra = nn.Parameter(torch.ones(2))
    optimizer = FusedAdamW([*groups_of(model), {"params": [extra], "names": ["e"], "group": "extra"}], fused=True)
    stats = one(model, optimizer, Trained(optimizer), [batch_of(5)]).read()
    assert stats.grad_norms["extra"] == 0.0 and stats.grad_norms["head"] > 0
    assert torch.equal(extra, torch.ones(2)) and not optimizer.state.get(extra)


def test_frozen_parameters_are_left_out():
    model = model_of()
    optimizer = FusedAdamW(groups_of(model), fused=True)
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    assert one(model, optimizer, Trained(optimizer), [batch_of(5)]).read().grad_norms.keys() == {"head"}


def test_fp64_weights_are_divided_in_fp64():
    """A factor of 1/3 in fp32 would leave an error of 1e-8 in the gradient."""
    batches = [batch_of(3, dtype=torch.float64)]
    model = model_of(torch.float64)
    optimizer = FusedSGD(groups_of(model), lr=1.0, fused=True)
    with placed(Precision(name="fp32")) as placement:
        assert num_unread(optimizer, placement) == 0
    one(model, optimizer, Trained(optimizer), batches)
    reference = model_of(torch.float64)
    (reference(batches[0]["inputs"]).square().sum(1) / 2).mean().backward()
    for parameter, held in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, held - held.grad, rtol=1e-14, atol=1e-15)
