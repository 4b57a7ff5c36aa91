"""What goes into a checkpoint comes out as it was: JSON values and tensors."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from finetune.checkpoints.documents import MOST_BYTES, MOST_LEVELS, from_json, to_json
from finetune.checkpoints.tensors import TYPE_NAMES, deserialised, serialised

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
SCALARS |= st.sampled_from(["NaN", "Infinity", "-Infinity", "~NaN", "~~-Infinity", "nan"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_documents_come_back_as_they_were(document):
    try:
        data = to_json(document)
    except UnicodeEncodeError:  # lone surrogates are not text
        return
    assert repr(from_json(data)) == repr(document)  # repr: NaN differs from itself, -0.0 equals 0.0
    json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_tuples_become_lists():
    assert from_json(to_json({"evaluations": [(10, 0.5), (20, -math.inf)]})) == {
        "evaluations": [[10, 0.5], [20, -math.inf]]
    }


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"state": {"a": [1, object()]}}, r"state\.a\[1\] is a object"),
        ({"state": torch.tensor(1)}, "state is a Tensor"),
        ({"state": b"x"}, "state is a bytes"),
        ({"state": {3: "x"}}, "the key 3 in state"),
        ([1], "JSON mapping"),
    ],
)
def test_what_is_not_json_is_refused_when_it_is_saved(document, named):
    with pytest.raises((TypeError, ValueError), match=named):
        from_json(to_json(document))


def test_hostile_json_is_refused():
    def deep(levels):
        return b'{"a":' * levels + b"1" + b"}" * levels

    assert from_json(deep(MOST_LEVELS))
    for data in [
        deep(MOST_LEVELS + 2),
        deep(200_000),
        b'{"a": NaN}',
        b"[1]",
        b"{",
        b"\xff{}",
        b" " * (MOST_BYTES + 1),
    ]:
        with pytest.raises(ValueError):
            from_json(data)


def test_deep_documents_are_refused_when_they_are_saved():
    document = {}
    for _ in range(MOST_LEVELS + 1):
        document = {"a": document}
    with pytest.raises(TypeError, match="nested deeper"):
        to_json(document)


def tensors_of_every_type() -> dict[str, torch.Tensor]:
    shapes = [(), (3,), (0, 4), (2, 5)]
    types = [getattr(torch, name.removeprefix("torch.")) for name in TYPE_NAMES]
    torch.manual_seed(0)
    made = {f"{t}{s}": torch.randint(0, 2, s).to(t) for t in types for s in shapes}
    view = torch.arange(24.0).reshape(4, 6)
    return {**made, "transposed": view.T, "sliced": view[1:3, ::2], "ünïcode ‑ name": torch.ones(2).requires_grad_()}


def test_pieces_are_what_the_library_writes():
    tensors = tensors_of_every_type()
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    ours, theirs = b"".join(serialised(tensors)), save(plain)
    back, expected = deserialised(ours), deserialised(theirs)
    assert back.keys() == expected.keys() == tensors.keys()
    for name, tensor in plain.items():
        assert back[name].dtype == tensor.dtype and back[name].shape == tensor.shape, name
        assert torch.equal(back[name], tensor), name
    for names in (["a"], ["ab"], ["abc"]):  # readers map the file, so the data must begin aligned
        piece = next(serialised(dict.fromkeys(names, torch.ones(2))))
        assert len(piece) % 8 == 0 and int.from_bytes(piece[:8], "little") == len(piece) - 8


def test_no_tensors_and_tied_tensors():
    assert deserialised(b"".join(serialised({}))) == {}
    tied = torch.ones(2)
    back = deserialised(b"".join(serialised({"a": tied, "b": tied})))
    back["a"] += 1
    assert torch.equal(back["b"], tied)


@pytest.mark.parametrize(
    "wrong", [3.0, torch.ones(2).to_sparse(), torch.empty(2, device="meta"), torch.ones(2, dtype=torch.complex128)]
)
def test_what_cannot_be_kept_is_named(wrong):
    with pytest.raises(TypeError, match="'layer.0'"):
        list(serialised({"layer.0": wrong}))


def test_mutated_safetensors_are_refused_or_read_whole():
    data = b"".join(serialised({"a": torch.ones(4), "b": torch.ones(2, 2)}))
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].decode()
    lies = [
        header.replace('"F32"', '"F64"', 1),
        header.replace("[4]", "[400000000000]", 1),
        header.replace("[0,16]", "[0,8]", 1),
        header.replace("[16,32]", "[8,32]", 1),
        header.replace('"F32"', '"X9"', 1),
    ]
    mutants = [len(lie.encode()).to_bytes(8, "little") + lie.encode() + data[8 + size :] for lie in lies]
    mutants += [data[:-1], data + b"x", data[:7], b"", (2**40).to_bytes(8, "little") + data[8:]]
    for mutant in mutants:
        with pytest.raises(ValueError, match="safetensors"):
            deserialised(mutant)
