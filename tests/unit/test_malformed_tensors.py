"""Files of tensors and JSON that lie: each is refused or read, within little more memory than the file has."""

from __future__ import annotations

import json
import random
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from finetune.checkpoints.documents import from_json
from finetune.checkpoints.tensors import deserialised
from finetune.errors import FinetuneError
from finetune.hub.contents import check_private
from finetune.models.contained import check_weights
from tests.forked import told_by_child
from tests.tiny_models import save_text_folder

HEADROOM = 256 * 2**20  # bytes of address space beyond what the process has when it begins; the files have some kB
TENSORS = {"a": torch.arange(24.0).reshape(4, 6), "b": torch.zeros(3, dtype=torch.int64), "c": torch.ones(())}
HUGE = (2**31, 2**40, 2**63 - 1, 2**63, 2**64, 10**30, -1, -(2**63))


def header_of(data):
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header, rest, *, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + rest


def lying(data, draw):
    """One seeded lie about a file of tensors: in its bytes, or in its header."""
    kind = draw.randrange(10)
    if kind == 0:
        return draw.choice([2**63, 2**64 - 1, 10**8, 2**31, len(data), 0]).to_bytes(8, "little") + data[8:]
    if kind == 1:
        return data[: draw.randrange(len(data))]
    if kind == 2:
        return data + bytes(draw.randrange(1, 10_000))
    if kind == 3:
        flipped = bytearray(data)
        for _ in range(draw.randint(1, 8)):
            flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        return bytes(flipped)
    header, rest = header_of(data)
    if kind == 4:
        return with_header(b"[" * draw.choice([100, 100_000]) + b"]" * 100, rest)
    name, record = draw.choice(sorted(header.items()))
    header[name] = draw.choice(
        [
            record | {"shape": [draw.choice(HUGE) for _ in range(draw.randint(1, 4))]},
            record | {"shape": [0, draw.choice(HUGE)]},
            record | {"shape": [1] * 10_000},
            record | {"data_offsets": [draw.choice((0, 5, *HUGE)), draw.choice((0, 7, *HUGE))]},
            record | {"dtype": draw.choice(["F64", "I8", "F4", "U128", "", None, 3, {}])},
            draw.choice([[], None, "x", {}, {"dtype": "F32"}]),
        ]
    )
    extra = [{}, {"d": record}, {"__metadata__": {"a": "x" * 10**6}}, {"__metadata__": {"a": 1}}, {"__metadata__": []}]
    return with_header(header | draw.choice(extra), rest)


def lying_json(draw):
    """One seeded lie in a document."""
    kind = draw.randrange(6)
    if kind == 0:
        return b'{"a": ' + b"[" * draw.choice([65, 1000, 10**6])
    if kind == 1:
        return b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}"
    if kind == 2:
        return b'{"a": 1' + b"0" * draw.choice([30, 400, 5000, 10**6]) + b"}"
    if kind == 3:
        return b'{"a": ' + draw.choice([b"NaN", b"1e999", b"-Infinity", b'"\\ud800"', b"\xff", b"'x'"]) + b"}"
    if kind == 4:
        return b'{"a": "' + b"x" * (17 * 2**20) + b'"}'
    return bytes(draw.randrange(256) for _ in range(draw.randrange(200)))


def limited(work):
    """What ``work`` returns in a child that may take little more memory than it has when it begins."""

    def inside():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + HEADROOM
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        return work()

    return told_by_child(inside)


def outcome(read):
    """``read``, ``refused``, or what nobody expected."""
    try:
        read()
    except (ValueError, FinetuneError):
        return "refused"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:200]
    return "read"


@pytest.mark.parametrize("seed", range(4))
def test_a_file_that_lies_is_refused_or_read_within_its_size(seed):
    good = save(TENSORS)
    assert deserialised(good).keys() == TENSORS.keys()

    def work():
        draw = random.Random(seed)
        found = [outcome(lambda: deserialised(lying(good, draw))) for _ in range(60)]
        return found + [outcome(lambda: from_json(lying_json(draw))) for _ in range(15)]

    found = limited(work)
    assert len(found) == 75 and set(found) == {"read", "refused"}, set(found)
    assert found.count("refused") > 50


def test_a_limit_on_memory_would_tell():
    assert "memory" in limited(lambda: outcome(lambda: bytearray(2 * HEADROOM))).lower()


def test_a_model_folder_that_lies_is_one_message(tmp_path):
    """As transformers reads it: 40 more files, with config.json among them."""
    from finetune.models.loading import load_text_classifier

    save_text_folder(tmp_path / "good")
    load_text_classifier(str(tmp_path / "good"), num_labels=2, id2label={0: "x", 1: "y"})
    data = (tmp_path / "good" / "model.safetensors").read_bytes()
    header, rest = header_of(data)
    names = [name for name in header if name != "__metadata__"]

    def work():
        draw, found = random.Random(0), []
        for number in range(40):
            folder = tmp_path / str(number)
            shutil.copytree(tmp_path / "good", folder)
            if number % 4 == 0:
                settings = json.loads((folder / "config.json").read_text())
                key = draw.choice(["vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"])
                settings[key] = draw.choice([10**11, 10**15, -1, 2**70, "x", None])
                (folder / "config.json").write_text(json.dumps(settings))
            else:
                lie = {**header, names[draw.randrange(len(names))]: draw.choice(
                    [{"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}, None, {"dtype": "F32"}]
                )}  # fmt: skip
                (folder / "model.safetensors").write_bytes(with_header(lie, rest))
            found.append(outcome(lambda place=str(folder): read_folder(place)))
        return found

    def read_folder(place):
        load_text_classifier(place, num_labels=2, id2label={0: "x", 1: "y"})

    assert set(limited(work)) == {"refused"}


def test_what_only_looks_at_headers_reads_no_more_than_the_file(tmp_path):
    (tmp_path / "model.safetensors").write_bytes((99_000_000).to_bytes(8, "little") + b"{}")
    (tmp_path / "config.json").write_text("{}")
    found = limited(
        lambda: [
            outcome(lambda: check_private(tmp_path, ("model.safetensors",), run=tmp_path)),
            outcome(lambda: check_weights(tmp_path, text="x")),
        ]
    )
    assert found == ["read", "read"]
