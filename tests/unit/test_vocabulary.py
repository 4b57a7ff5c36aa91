"""Training the rows in use equals training the whole table, rows that no token reads included."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from finetune.encoders.vocabulary import (
    UsedEmbedding,
    keep_used_rows,
    restore_rows,
    token_ids,
    used_rows,
    why_whole,
    word_embedding,
)
from finetune.optimizers import SGD, AdamW, param_groups
from finetune.strategies import Full, LoRA
from tests.tiny_models import TEXT, VOCABULARY, batch, tiny

pytestmark = pytest.mark.filterwarnings("ignore:.*shares the weights:UserWarning")
USED = np.array([2, 3, *range(9, VOCABULARY, 2)])
OPTIMIZERS = {
    "adamw": AdamW(lr=1e-2, weight_decay=0.1),
    "plain adamw": AdamW(lr=1e-2, weight_decay=0.0),
    "sgd": SGD(lr=1e-2, weight_decay=0.1, momentum=0.9),
}


def store(*ids: int, **more) -> SimpleNamespace:
    return SimpleNamespace(ids=np.array(ids, dtype=np.int32), **{"varies": False} | more)


def inputs(step: int, family: str = "bert") -> dict[str, torch.Tensor]:
    """Tokens of ``USED`` and padding; some ids come only late."""
    given = batch(family, seed=step)
    given["input_ids"] = torch.from_numpy(USED)[given["input_ids"] % (6 + 2 * step)] * given["attention_mask"]
    return given


def started(config, dtype: torch.dtype, *, compact: bool):
    model = tiny("bert").to(dtype)
    with torch.no_grad():
        word_embedding(model)[1].weight[0] = 0.1  # padding's own row starts at 0, where no decay shows
    if compact:
        keep_used_rows(model, used_rows(model, USED))
    groups = Full().groups(_layers(model), ())
    return model, config.build(param_groups(groups, dict(model.named_parameters()), config), fused="yes")


def _layers(model):
    from finetune.layers import layer_groups

    return layer_groups(model)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps, *, frozen=(), skipped=()) -> None:
    table = word_embedding(model)[1]
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 40)
        table.weight.requires_grad_(step not in frozen)
        model(**inputs(step)).logits.square().sum().backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        optimizer.grad_scale = torch.clamp(norm, min=1.0).float()
        optimizer.found_inf = torch.tensor(float(step in skipped))
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_trained_weights_equal_those_of_the_whole_table(optimizer, dtype):
    """20 updates under a schedule and clipping, with a phase in which the table is frozen and an update dropped."""
    found = {}
    for compact in (False, True):
        model, steps = started(OPTIMIZERS[optimizer], dtype, compact=compact)
        train(model, steps, range(20), frozen=range(5, 9), skipped=(11,))
        restore_rows(model)
        found[compact] = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    assert found[True].keys() == found[False].keys()
    within = 1e-10 if dtype == torch.float64 else 1e-6
    for name, plain in found[False].items():
        if "key.bias" in name and dtype == torch.float32:
            continue  # its true gradient is 0, and Adam makes a step of the rounding
        assert found[True][name].shape == plain.shape
        assert (found[True][name] - plain).abs().max() <= within, name
    name = "bert.embeddings.word_embeddings.weight"
    start = started(OPTIMIZERS[optimizer], dtype, compact=False)[0].state_dict()[name]
    share = found[True][name] / start
    assert ((share[USED] - 1).abs().amax(1) > 1e-3).double().mean() > 0.8
    still = np.setdiff1d(np.arange(VOCABULARY), USED)  # with padding, which is read and has no gradient
    torch.testing.assert_close(share[still], share[0, 0].expand(len(still), 32).clone())
    assert (share[0, 0] == 1) if optimizer == "plain adamw" else (share[0, 0] < 1 - 1e-3)


def test_a_decay_below_the_last_digit_is_that_of_the_rows():
    """2,000 updates that each take 2e-7 of a number, or 0 to 2 of its last digits."""
    torch.manual_seed(0)
    model = nn.Module()
    model.table = nn.Embedding(300, 64)
    model.get_input_embeddings = lambda: model.table
    plain = nn.Parameter(model.table.weight.detach().clone())
    keep_used_rows(model, used_rows(model, np.arange(10)))
    optimizer = torch.optim.AdamW([plain, model.table.weight], lr=2e-5, weight_decay=0.01, fused=True)
    start = plain.detach().clone()
    for _ in range(2000):
        for parameter in (plain, model.table.weight):
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    restore_rows(model)
    moved, expected = ((table.detach()[10:] / start[10:] - 1).mean().item() for table in (model.table.weight, plain))
    assert expected < -3e-4 and abs(moved / expected - 1) < 0.01


def test_padding_has_no_gradient():
    model = Large(nn.Embedding(1000, 100, padding_idx=7))
    keep_used_rows(model, used_rows(model, np.array([3, 9])))  # padding is in use whether it occurs or not
    model.words(torch.tensor([[3, 7, 9, 7]])).sum().backward()
    assert model.words.weight.grad[:, 0].tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("family", TEXT)
def test_every_family_reads_the_same_rows(family):
    model = tiny(family)
    given = inputs(3, family)
    name, table = word_embedding(model)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    expected = model(**given).logits
    expected.square().sum().backward()
    gradient = table.weight.grad
    used = used_rows(model, USED)
    keep_used_rows(model, used)
    found = model(**given).logits
    found.square().sum().backward()
    assert torch.equal(found, expected)
    ids = np.union1d(USED, [0])
    assert used.name == name and used.ids.tolist() == ids.tolist() and str(used) == f"{len(ids)} of {VOCABULARY} rows"
    ours = word_embedding(model)[1].weight.grad
    assert torch.equal(ours[:-1], gradient[ids]) and not ours[-1].any()
    assert set(model.state_dict()) == set(before)
    restore_rows(model)
    assert type(word_embedding(model)[1]) is nn.Embedding
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert set(dict(model.named_buffers())) == set(dict(tiny(family).named_buffers()))


def test_a_run_goes_on_from_compact_weights_bit_for_bit():
    config = OPTIMIZERS["adamw"]
    whole, steps = started(config, torch.float32, compact=True)
    train(whole, steps, range(8))
    first, steps = started(config, torch.float32, compact=True)
    train(first, steps, range(5))
    weights, moments = copy.deepcopy(first.state_dict()), copy.deepcopy(steps.state_dict())
    second, steps = started(config, torch.float32, compact=True)
    second.load_state_dict(weights)
    steps.load_state_dict(moments)
    train(second, steps, range(5, 8))
    for model in (whole, second):
        restore_rows(model)
    expected = whole.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in second.state_dict().items())


def test_the_digest_names_ids_and_unused_rows():
    def digest(ids, seed=0):
        return used_rows(tiny("bert", seed=seed), ids).digest

    assert digest(USED) == digest(USED)
    assert len({digest(USED), digest(USED[:-1]), digest(USED, seed=1)}) == 3


@pytest.mark.parametrize("token", [8, -1, VOCABULARY])
def test_a_token_that_is_not_in_use_is_an_error(token):
    model = tiny("bert")
    keep_used_rows(model, used_rows(model, USED))
    with pytest.raises((IndexError, RuntimeError), match="out of range"):
        model(input_ids=torch.tensor([[2, token, 3]]))


def test_copies_are_their_own():
    model = tiny("bert")
    keep_used_rows(model, used_rows(model, USED))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        word_embedding(twin)[1].weight.zero_()
    assert isinstance(word_embedding(twin)[1], UsedEmbedding)
    restore_rows(twin)
    restore_rows(model)
    assert word_embedding(model)[1].weight.abs().sum() > 0 == word_embedding(twin)[1].weight[USED].abs().sum()


def test_ids_of_all_splits_count_and_the_special_ones():
    stores = [store(7, 7, 2), store(5), store()]
    assert token_ids(stores, num_embeddings=10, also=(0, 12)).tolist() == [0, 2, 5, 7]


@pytest.mark.parametrize(
    "bad", [store(1, 10), store(-1), store(1, varies=True), SimpleNamespace(), SimpleNamespace(ids=np.array([1]))]
)
def test_a_store_that_does_not_tell_its_ids(bad):
    assert token_ids([store(1), bad], num_embeddings=10, also=()) is None


class Large(nn.Module):
    """A classifier with a table that is worth it."""

    def __init__(self, embedding: nn.Module | None = None) -> None:
        super().__init__()
        self.words = embedding or nn.Embedding(1000, 100)
        self.head = nn.Linear(100, 2)

    def get_input_embeddings(self) -> nn.Module:
        return self.words


def why(model=None, ids=USED, trained=("words.weight",), optimizer=AdamW()) -> str:  # noqa: B008
    return why_whole(model or Large(), ids, trained=trained, optimizer=optimizer)


def test_the_whole_table_is_trained_where_rows_in_use_are_not_enough():
    class Odd(nn.Embedding):
        pass

    class Own(AdamW):
        pass

    tied, hooked = Large(), Large()
    tied.head = nn.Linear(100, 1000)
    tied.head.weight = tied.words.weight
    hooked.words.weight.register_hook(lambda gradient: None)
    assert why() == "" == why(optimizer=SGD())
    assert why(trained=["head.weight"]) == "the word embedding never trains"
    assert why(ids=None) == "the data does not tell which tokens occur"
    assert why(ids=np.arange(990)) == "990 of 1,000 rows occur"
    assert why(optimizer=Own()) == "Own may let rows depend on one another"
    for odd in (Odd(1000, 100), nn.Embedding(1000, 100, max_norm=1), nn.Embedding(1000, 100, sparse=True)):
        assert why(Large(odd)) == "not a plain embedding"
    assert why(tied) == "the word embedding is tied to other weights"
    assert why(hooked) == "a hook reads the word embedding"
    assert why(Large(nn.Linear(3, 3))) == why(tiny("timm-vit")) == why(tiny("vit")) == "no word embedding"


def test_adapters_leave_the_table_alone():
    model = LoRA().adapt(tiny("bert"), ())
    name, _ = word_embedding(model)
    assert name == "base_model.model.bert.embeddings.word_embeddings.weight"
    trained = {name for group in LoRA().groups(_layers(model), ()) for name in group.parameters}
    assert why(model, trained=trained) == "the word embedding never trains"
