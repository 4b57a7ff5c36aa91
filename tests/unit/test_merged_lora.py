"""LoRA's faster forward gives what PEFT's gives, and stands aside wherever it would not."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint

from finetune.encoders.low_rank import low_rank_linear, merges
from finetune.encoders.merged_lora import MergedLinear, merge_lora, restore_lora
from finetune.strategies import LoRA
from tests.tiny_models import TIMM, batch, tiny

FAMILIES = ("bert", "distilbert", "modernbert", "albert", "vit", "timm-vit")
EXACT = {torch.float64: 1e-10, torch.float32: 1e-5}  # of the largest value of a tensor

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*shares the weights:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]


def adapted(family: str, *, dtype: torch.dtype = torch.float32, **settings) -> nn.Module:
    """A tiny model with adapters off their start, dropout off."""
    torch.manual_seed(3)
    model = LoRA(**{"rank": 4} | settings).adapt(tiny(family), ()).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model


def outcome(model: nn.Module, family: str, *, size: int = 3) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits, and the gradient of everything that trains."""
    dtype = next(model.parameters()).dtype
    inputs = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in batch(family, size=size).items()
    }
    output = model(inputs["pixel_values"]) if family in TIMM else model(**inputs)
    logits = output if isinstance(output, torch.Tensor) else output.logits
    model.zero_grad()
    logits.float().square().sum().backward() if dtype != torch.float64 else logits.square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), gradients


def assert_close(found, expected, *, within: float) -> None:
    assert found[1].keys() == expected[1].keys()
    pairs = {"logits": (found[0], expected[0])}
    pairs |= {name: (found[1][name], gradient) for name, gradient in expected[1].items()}
    for name, (ours, plain) in pairs.items():
        assert (ours - plain).abs().max() <= within * plain.abs().max(), name


def distance(found, expected) -> float:
    """Of logits and gradients together, relative."""
    ours, plain = (torch.cat([of[0].flatten(), *(g.flatten() for g in of[1].values())]) for of in (found, expected))
    return ((ours - plain).norm() / plain.norm()).item()


@contextmanager
def merged(model: nn.Module) -> Iterator[nn.Module]:
    assert merge_lora(model) == {}
    yield model
    restore_lora(model)


@pytest.mark.parametrize("size", [3, 16], ids=["update added", "weight merged"])
@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_pefts_forward(family, dtype, size):
    model = adapted(family, dtype=dtype)
    expected = outcome(model, family, size=size)
    with merged(model):
        assert any(isinstance(module, MergedLinear) for module in model.modules())
        assert_close(outcome(model, family, size=size), expected, within=EXACT[dtype])
    assert not any(isinstance(module, MergedLinear) for module in model.modules())
    assert_close(outcome(model, family, size=size), expected, within=0)


def test_both_ways_are_tested():
    used = {merges(size * 12, 32, 64) for size in (3, 16)}
    assert used == {True, False}


@pytest.mark.parametrize("tokens", [10, 200])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_equals_peft_under_autocast_within_its_rounding(dtype, tokens):
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(64, 96)), LoraConfig(r=4, target_modules=["0"], use_rslora=True))
    nn.init.normal_(model.base_model.model[0].lora_B["default"].weight, std=0.1)
    x, direction = torch.randn(2, tokens // 2, 64, requires_grad=True), torch.randn(2, tokens // 2, 96)

    def parts():
        model.zero_grad()
        x.grad = None
        y = model(x)
        y.backward(direction.to(y.dtype))
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return y.detach(), gradients | {"x": x.grad.clone()}

    exact = parts()
    with torch.autocast("cpu", dtype=dtype):
        expected = parts()
        with merged(model):
            found = parts()
    assert {name: gradient.dtype for name, gradient in found[1].items()} == dict.fromkeys(expected[1], torch.float32)
    assert found[0].dtype == expected[0].dtype == dtype
    rounding = distance(expected, exact)  # what autocast costs PEFT's own forward
    assert 0 < distance(found, exact) < 1.2 * rounding < 2 * torch.finfo(dtype).eps


def test_the_output_has_autocasts_format():
    model = adapted("bert")
    layer = model.get_submodule("base_model.model.bert.encoder.layer.0.attention.self.query")
    with merged(model), torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(5, 32)).dtype == torch.bfloat16
        assert layer(torch.randn(5, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("merging", [True, False])
@pytest.mark.parametrize("trained", ["", "x", "a", "b", "xa", "xb", "ab", "xab", "xabc"])
def test_any_part_may_be_frozen(trained, merging):
    draw = torch.Generator().manual_seed(0)
    tokens = 40 if merging else 3
    shapes = {"x": (2, tokens, 6), "w": (10, 6), "c": (10,), "a": (2, 6), "b": (10, 2)}
    values = {
        name: torch.randn(*shape, generator=draw, dtype=torch.float64).requires_grad_(name in trained)
        for name, shape in shapes.items()
    }
    x, w, c, a, b = values.values()
    assert merges(2 * tokens, 6, 10) is merging
    found = low_rank_linear(x, w, c, a, b, scale=1.5)
    expected = nn.functional.linear(x, w + 1.5 * b @ a, c)
    torch.testing.assert_close(found, expected)
    assert found.requires_grad is bool(trained)
    if trained:
        parts = [values[name] for name in trained]
        direction = torch.randn(found.shape, generator=draw, dtype=torch.float64)
        gradients = (torch.autograd.grad(output, parts, direction) for output in (found, expected))
        for ours, plain in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, plain)


def test_what_is_kept_for_backward_is_no_weight():
    """Under checkpointing and out of it, no merged weight lives from forward to backward."""
    w, a, b = torch.randn(16, 8), torch.randn(2, 8, requires_grad=True), torch.randn(16, 2, requires_grad=True)
    x = torch.randn(64, 8, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        low_rank_linear(x, w, None, a, b, scale=1.0)
    own = {tensor.data_ptr() for tensor in (x, w, a, b)}
    assert kept and all(tensor.data_ptr() in own for tensor in kept)


def test_activation_checkpointing_changes_nothing():
    model = adapted("bert", dtype=torch.float64)
    expected = outcome(model, "bert")
    layers = model.base_model.model.bert.encoder.layer
    for layer in layers:
        plain = layer.forward
        layer.forward = lambda *args, plain=plain, **kwargs: checkpoint(plain, *args, use_reentrant=False, **kwargs)
    with merged(model):
        assert_close(outcome(model, "bert"), expected, within=EXACT[torch.float64])


def test_accumulated_micro_batches_add_up():
    model = adapted("bert", dtype=torch.float64)
    with merged(model):
        for _ in range(2):
            model(**batch("bert")).logits.square().sum().backward()
        twice = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        _, once = outcome(model, "bert")
    for name, gradient in once.items():
        torch.testing.assert_close(twice[name], 2 * gradient)


def test_a_weight_changed_before_backward_is_refused():
    """An update between forward and backward would give the gradient of neither weight."""
    a, b = torch.randn(2, 8, requires_grad=True), torch.randn(16, 2, requires_grad=True)
    y = low_rank_linear(torch.randn(64, 8, requires_grad=True), torch.randn(16, 8), None, a, b, scale=1.0)
    with torch.no_grad():
        b.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_second_derivative_is_refused():
    a, b = torch.randn(2, 8, requires_grad=True), torch.randn(16, 2, requires_grad=True)
    y = low_rank_linear(torch.randn(64, 8), torch.randn(16, 8), None, a, b, scale=1.0)
    (first,) = torch.autograd.grad(y.square().sum(), a, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


@pytest.mark.parametrize("reason", ["lora_dropout", "variant", "bias", "trains too", "hook", "merged", "adapters"])
def test_each_exclusion(reason):
    settings = {
        "lora_dropout": {"lora_dropout": 0.1},
        "variant": {"use_dora": True},
        "bias": {"lora_bias": True},
    }.get(reason, {})
    model = get_peft_model(tiny("bert"), LoraConfig(r=4, target_modules=["query"], **settings))
    name = "base_model.model.bert.encoder.layer.0.attention.self.query"
    layer = model.get_submodule(name)
    if reason == "trains too":
        layer.base_layer.weight.requires_grad_()
    if reason == "hook":
        layer.lora_A["default"].register_forward_hook(lambda *given: None)
    if reason == "merged":
        layer.merge()
    if reason == "adapters":
        model.add_adapter("other", LoraConfig(r=4, target_modules=["query"]))
        model.base_model.set_adapter(["default", "other"])
    assert reason in merge_lora(model)[name]
    assert type(layer) is not MergedLinear


def test_a_layer_that_is_not_plain_linear_is_named():
    class Odd(nn.Linear):
        pass

    base = nn.Sequential(Odd(4, 4), nn.Embedding(5, 4), nn.Linear(4, 4))
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["0", "1", "2"]))
    kept = merge_lora(model)
    assert kept == {
        "base_model.model.0": "not a plain linear layer (Odd)",
        "base_model.model.1": "not a plain linear layer (Embedding)",
    }
    assert type(model.base_model.model[2]) is MergedLinear


def test_what_changes_after_the_swap_goes_pefts_way():
    model = adapted("bert")
    plain = copy.deepcopy(model)
    inputs = batch("bert")

    def both():
        return model(**inputs).logits, plain(**inputs).logits

    with merged(model), torch.no_grad():
        with model.disable_adapter(), plain.disable_adapter():
            assert torch.equal(*both())
        for made in (model, plain):
            made.merge_adapter()
        assert torch.equal(*both())
        for made in (model, plain):
            made.unmerge_adapter()
        torch.testing.assert_close(*both())
        torch.testing.assert_close(model.merge_and_unload()(**inputs).logits, both()[1])


def test_copies_and_names_are_pefts_own():
    model = adapted("bert")
    names = list(model.state_dict())
    with merged(model):
        assert list(model.state_dict()) == names
        twin = copy.deepcopy(model)
    layer = "base_model.model.bert.encoder.layer.0.attention.self.query"
    assert type(twin.get_submodule(layer)) is MergedLinear  # a copy made in between is whole, and its own
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert twin.get_submodule(layer)(torch.ones(3, 32)).abs().sum() == 0
        assert model.get_submodule(layer)(torch.ones(3, 32)).abs().sum() > 0
    for made in (model, adapted("bert")):
        again = torch.load(_pickled(made), weights_only=False)
        assert list(again.state_dict()) == names


def _pickled(model: nn.Module) -> io.BytesIO:
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return stream
