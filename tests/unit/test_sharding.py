"""State by name: what an optimizer has learned of a parameter is found again wherever that parameter stands."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finetune.encoders import Forward
from finetune.training.sharding import load_model_state, load_optimizer_state, model_state, optimizer_state


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))


def optimizer(made, order):
    parameters = dict(made.named_parameters())
    groups = [{"params": [parameters[name]], "names": [name], "group": name} for name in order]
    return torch.optim.AdamW(groups, lr=0.1, fused=True)


NAMES = ["0.weight", "0.bias", "1.weight", "1.bias"]


def stepped(order, frozen=()):
    made = model()
    found = optimizer(made, order)
    made(torch.ones(2, 3)).square().sum().backward()
    for name, parameter in made.named_parameters():
        if name in frozen:
            parameter.grad = None
    found.step()
    return made, found


def test_moments_follow_the_parameter_and_not_its_place():
    first, source = stepped(NAMES)
    saved = optimizer_state(source)
    assert {name.rpartition("/")[0] for name in saved} == set(NAMES)
    second, target = model(), None
    second.load_state_dict(first.state_dict())
    target = optimizer(second, NAMES[::-1])  # same shapes in other places
    load_optimizer_state(target, saved)
    for made, found in ((first, source), (second, target)):
        found.zero_grad()
        made(torch.full((2, 3), 2.0)).square().sum().backward()
        found.step()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_what_never_trained_has_no_state():
    _, found = stepped(NAMES, frozen=("0.weight",))
    assert not any(name.startswith("0.weight/") for name in optimizer_state(found))


def test_weights_round_trip_without_the_wrapper_in_their_names():
    forward = Forward(model())
    saved = model_state(forward, ["0.weight"])
    assert list(saved) == ["0.weight"]
    saved["0.weight"].zero_()  # a copy: the model keeps its own
    assert forward.model[0].weight.abs().sum() > 0
    load_model_state(forward, saved)
    assert forward.model[0].weight.abs().sum() == 0


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"0.weight: \(2, 2\) in the checkpoint, \(3, 3\) in the model"):
        load_model_state(Forward(model()), {"0.weight": torch.zeros(2, 2)})
