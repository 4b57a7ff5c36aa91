from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.errors import ModelError
from finetune.layers import layer_groups
from finetune.models import Weights, load_image_classifier, load_text_classifier
from finetune.models.resizing import resample_positions
from tests.tiny_models import TEXT, TIMM, VISION, batch, save_image_folder, save_text_folder, save_timm_folder, tiny

ABC = {0: "a", 1: "b", 2: "c"}


@pytest.fixture(autouse=True)
def without_hub(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def load_text(folder, **arguments):
    return load_text_classifier(str(folder), num_labels=3, id2label=ABC, **arguments)


def edit_config(folder: Path, **values) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("family", TEXT)
def test_a_text_encoder_keeps_its_weights_and_gets_a_new_head(family, tmp_path):
    loaded = load_text(save_text_folder(tmp_path, family, seed=3))
    reference = tiny(family, seed=3)
    base = reference.base_model_prefix
    expected = {name for name, _ in reference.named_parameters() if not name.startswith(f"{base}.")}
    assert set(loaded.new) == expected and loaded.library == "transformers"
    weights = loaded.module.state_dict()
    assert all(torch.equal(weights[n], w) for n, w in reference.state_dict().items() if n.startswith(f"{base}."))
    assert loaded.module.config.id2label == ABC
    assert loaded.processor("good film")["input_ids"][0] == 2  # [CLS]


@pytest.mark.parametrize("family", VISION)
def test_an_image_encoder_keeps_its_weights_and_gets_a_new_head(family, tmp_path):
    loaded = load_image_classifier(str(save_image_folder(tmp_path, family, seed=3)), id2label=ABC)
    assert loaded.new == ("classifier.weight", "classifier.bias")
    reference = tiny(family, seed=3).state_dict()
    weights = loaded.module.state_dict()
    assert all(torch.equal(weights[n], w) for n, w in reference.items() if not n.startswith("classifier."))


@pytest.mark.parametrize("family", TIMM)
def test_a_timm_folder_is_read_with_its_weights(family, tmp_path):
    loaded = load_image_classifier(f"timm:{save_timm_folder(tmp_path, family, seed=3)}", id2label={0: "x", 1: "y"})
    reference = tiny(family, seed=3).state_dict()
    weights = loaded.module.state_dict()
    assert loaded.library == "timm" and loaded.new and all(name.startswith("head") for name in loaded.new)
    assert all(torch.equal(weights[name], weight) for name, weight in reference.items() if name not in loaded.new)
    assert weights[loaded.new[0]].shape[0] == 2


def test_new_weights_follow_the_global_generator(tmp_path):
    folder = save_text_folder(tmp_path)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(load_text(folder).module.classifier.weight)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_a_missing_pooler_is_new_and_in_the_head_group(tmp_path):
    folder = save_text_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "pooler" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load_text(folder)
    assert loaded.new == ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias")
    assert set(loaded.new) <= set(layer_groups(loaded.module, new=loaded.new)[-1].parameters)


def test_a_head_of_another_size_is_new(tmp_path):
    folder = save_text_folder(tmp_path, "roberta", head=True)
    loaded = load_text_classifier(str(folder), num_labels=5, id2label=dict(enumerate("abcde")))
    assert loaded.new == ("classifier.out_proj.weight", "classifier.out_proj.bias")
    assert loaded.module.config.num_labels == 5


def test_a_head_with_the_same_labels_is_kept(tmp_path):
    folder = save_text_folder(tmp_path, head=True, seed=4)
    edit_config(folder, id2label={str(index): name for index, name in ABC.items()})
    loaded = load_text(folder)
    assert loaded.new == ()
    assert torch.equal(loaded.module.classifier.weight, tiny("bert", seed=4).classifier.weight)


@pytest.mark.parametrize("names", [["b", "a", "c"], ["x", "y", "z"]])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_head_with_other_labels_is_drawn_anew(family, names, tmp_path):
    folder = save_text_folder(tmp_path, family, head=True, seed=4)
    edit_config(folder, id2label={str(index): name for index, name in enumerate(names)})
    loaded = load_text(folder)
    assert loaded.new == ("classifier.weight", "classifier.bias")
    assert not torch.equal(loaded.module.classifier.weight, tiny(family, seed=4).classifier.weight)
    assert loaded.module.classifier.weight.std() > 0 and not loaded.module.classifier.bias.any()


def test_a_timm_head_is_kept_only_with_the_same_labels(tmp_path):
    folder = save_timm_folder(tmp_path, seed=4, labels=("a", "b", "c"))
    kept = load_image_classifier(f"timm:{folder}", id2label=ABC)
    other = load_image_classifier(f"timm:{folder}", id2label={0: "c", 1: "b", 2: "a"})
    assert kept.new == () and torch.equal(kept.module.head.weight, tiny("timm-vit", seed=4).head.weight)
    assert other.new == ("head.weight", "head.bias") and not torch.equal(
        other.module.head.weight, kept.module.head.weight
    )


def test_a_regression_head_is_one_output(tmp_path):
    folder = save_text_folder(tmp_path)
    loaded = load_text_classifier(str(folder), num_labels=1, problem="regression")
    assert loaded.module.config.problem_type == "regression" and loaded.module.classifier.out_features == 1
    assert "classifier.weight" in loaded.new


def test_a_missing_block_is_an_error_unless_meant(tmp_path):
    folder = save_text_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if ".layer.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 16 weights of the trunk.*bert.encoder.layer.1.*allow_partial"):
        load_text(folder)
    loaded = load_text(folder, allow_partial=True)
    groups = layer_groups(loaded.module, new=loaded.new)
    assert [group.name for group in groups] == ["embeddings", "layer.0", "head"]  # block 1 trains with the head


def test_a_half_precision_checkpoint_trains_in_fp32(tmp_path):
    folder = save_text_folder(tmp_path)
    weights = {name: weight.half() for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit_config(folder, dtype="float16")
    assert {parameter.dtype for parameter in load_text(folder).module.parameters()} == {torch.float32}


def test_from_scratch_only_the_config_is_read_and_the_head_is_new(tmp_path):
    folder = save_text_folder(tmp_path, seed=5)
    (folder / "model.safetensors").unlink()
    loaded = load_text(folder, weights=Weights.SCRATCH)
    assert loaded.new == layer_groups(loaded.module)[-1].parameters
    same = (
        loaded.module.bert.embeddings.word_embeddings.weight
        == tiny("bert", seed=5).bert.embeddings.word_embeddings.weight
    )
    assert not same[1:].any()


def test_timm_from_scratch_needs_no_checkpoint():
    loaded = load_image_classifier("timm:test_vit", id2label=ABC, weights=Weights.SCRATCH)
    assert loaded.new == layer_groups(loaded.module)[-1].parameters
    assert loaded.processor["input_size"] == (3, 160, 160)


def test_nothing_is_printed_while_loading(tmp_path, capfd, caplog):
    folder = save_text_folder(tmp_path / "text")
    timm_folder = save_timm_folder(tmp_path / "timm")
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_text(folder)
        load_image_classifier(f"timm:{timm_folder}", id2label={0: "x", 1: "y"})
    assert capfd.readouterr() == ("", "") and not caplog.records


@pytest.mark.parametrize("family", ["vit", "deit", "dinov2"])
def test_another_image_size_resamples_the_positions(family, tmp_path):
    folder = str(save_image_folder(tmp_path, family, seed=3))
    loaded = load_image_classifier(folder, id2label=ABC, image_size=32)
    assert loaded.new == ("classifier.weight", "classifier.bias") and loaded.module.config.image_size == 32
    assert dict(loaded.processor.size) == {"height": 32, "width": 32}
    assert loaded.module(pixel_values=torch.zeros(1, 3, 32, 32)).logits.shape == (1, 3)
    table = next(weight for name, weight in loaded.module.named_parameters() if "position_embeddings" in name)
    own = next(weight for name, weight in tiny(family, seed=3).named_parameters() if "position_embeddings" in name)
    prefix = own.shape[1] - 16
    assert table.shape[1] == prefix + 64 and torch.equal(table[:, :prefix], own[:, :prefix])
    assert torch.allclose(table[:, prefix:].mean(1), own[:, prefix:].mean(1), atol=1e-2)


def test_resampled_positions_keep_their_order_and_scale():
    ramp = torch.arange(16.0).reshape(1, 16, 1)
    larger = resample_positions(torch.cat([torch.full((1, 1, 1), 99.0), ramp], dim=1), length=65)[0, :, 0]
    assert larger[0] == 99 and torch.equal(resample_positions(ramp, length=16), ramp)
    rows = larger[1:].reshape(8, 8)
    assert (rows.diff(dim=0) > 0).all() and (rows.diff(dim=1) > 0).all()


def test_relative_positions_cannot_be_resampled(tmp_path):
    folder = str(save_image_folder(tmp_path, "beit"))
    with pytest.raises(ModelError, match="relative_position_bias_table depends on the size.*Use its own size, 16"):
        load_image_classifier(folder, id2label=ABC, image_size=32)


@pytest.mark.parametrize(("family", "fixed"), [("timm-vit", True), ("timm-convnext", False)])
def test_timm_takes_another_image_size(family, fixed, tmp_path):
    folder = save_timm_folder(tmp_path, family)
    loaded = load_image_classifier(f"timm:{folder}", id2label=ABC, image_size=64)
    assert loaded.processor["input_size"] == (3, 64, 64)
    assert not fixed or loaded.module.pos_embed.shape[1] == 1 + 16 * 16
    assert loaded.module(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


BROKEN = {
    "no-config": (lambda f: (f / "config.json").unlink(), r"lacks config.json; it holds 'model.safetensors'"),
    "only-pickle": (only_pickle, r"lacks model.safetensors \(it has 'pytorch_model.bin', a pickle"),
    "no-tokenizer": (
        lambda f: [(f / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
        r"lacks tokenizer.json \(the tokenizer\)",
    ),
    "cut-off": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:900]),
        "cannot be loaded: ",
    ),
    "no-json": (lambda f: (f / "config.json").write_text("{"), "cannot be loaded: "),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_folder_is_one_line(fault, tmp_path):
    folder = save_text_folder(tmp_path)
    breaks, message = BROKEN[fault]
    breaks(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_text(folder)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_a_timm_folder_with_a_pickle_is_not_opened(tmp_path):
    only_pickle(save_timm_folder(tmp_path))
    with pytest.raises(ModelError, match="lacks model.safetensors"):
        load_image_classifier(f"timm:{tmp_path}", id2label=ABC)


def test_a_timm_checkpoint_that_lacks_a_weight_is_an_error(tmp_path):
    folder = save_timm_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["blocks.1.mlp.fc1.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_image_classifier(f"timm:{folder}", id2label={0: "x", 1: "y"})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./no/such/folder", "there is no such folder"),
        ("google-bert/bert-base-uncased", r"hf download google-bert/bert-base-uncased --local-dir"),
        ("timm:vit_base_patch16_224", "timm has image models only"),
    ],
)
def test_a_model_that_is_not_there_says_what_to_do(source, message):
    with pytest.raises(ModelError, match=message):
        load_text(source)


def test_a_timm_name_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"timm:path/to/folder.*hf download timm/vit_base_patch16_224.augreg"):
        load_image_classifier("timm:vit_base_patch16_224.augreg_in21k", id2label=ABC)
    with pytest.raises(ModelError, match="has no model 'vit_bose_patch16_224'.*did you mean 'vit_base_patch16_224'"):
        load_image_classifier("timm:vit_bose_patch16_224", id2label=ABC, weights=Weights.SCRATCH)


def test_a_transformers_model_without_image_classifier_names_the_way_out(tmp_path):
    from transformers import DINOv3ViTConfig

    folder = save_image_folder(tmp_path)
    DINOv3ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2).save_pretrained(folder)
    with pytest.raises(ModelError, match="no image classifier in transformers.*timm:vit_small_patch16_dinov3"):
        load_image_classifier(str(folder), id2label=ABC)


def test_a_timm_folder_without_its_prefix_names_it(tmp_path):
    folder = save_timm_folder(tmp_path)
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ModelError, match="write timm:"):
        load_image_classifier(str(folder), id2label=ABC)


PROBE = """
import os, sys, time
from finetune.errors import ModelError
from finetune.models.sources import check_source
start = time.perf_counter()
try:
    check_source("google-bert/bert-base-uncased", processor="tokenizer")
except ModelError as error:
    print(error, os.environ["HF_HUB_OFFLINE"], "torch" in sys.modules, time.perf_counter() - start < 3)
"""


def test_a_hub_that_is_not_there_is_given_up_within_three_seconds(tmp_path):
    with socket.socket() as closed:  # bound, so nobody else takes the port, but not listening
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path)}
        environment["PYTHONPATH"] = os.pathsep.join((os.getcwd(), os.environ["PYTHONPATH"]))
        done = subprocess.run(
            [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=60
        )
    assert done.stdout.endswith("1 False True\n"), done.stdout + done.stderr
    assert "hf download google-bert/bert-base-uncased" in done.stdout


def test_a_hub_that_answers_is_reachable():
    from finetune.models.offline import _reachable

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert _reachable(f"http://127.0.0.1:{port}")
    assert not _reachable(f"http://127.0.0.1:{port}/closed")


def test_a_name_look_up_that_hangs_is_not_waited_for(monkeypatch):
    from finetune.models.offline import _reachable

    release, look_up = threading.Event(), socket.getaddrinfo

    def hang(host, port, *arguments, **options):
        release.wait(5)  # it would be found then
        return look_up("127.0.0.1", port, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not _reachable(f"http://hub.invalid:{server.getsockname()[1]}")
        release.set()


@pytest.mark.parametrize(("answer", "reachable"), [(b"200 OK", True), (b"403 Forbidden", False)])
def test_the_probe_goes_through_the_proxy(answer, reachable, monkeypatch):
    from finetune.models.offline import _reachable

    asked = []

    def proxy(server):
        connection, _ = server.accept()
        asked.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 " + answer + b"\r\n\r\n")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        thread = threading.Thread(target=proxy, args=(server,))
        thread.start()
        assert _reachable(f"http://hub.invalid/{answer.decode()[:3]}") is reachable
        thread.join()
    assert asked[0].startswith(b"CONNECT hub.invalid:80 ") and b"Basic bWU6c2VjcmV0" in asked[0]


def test_a_model_in_the_cache_loads_without_the_hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / "0123456789012345678901234567890123456789"
    save_text_folder(snapshot, seed=6)
    refs = tmp_path / "models--someone--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text(snapshot.name)
    loaded = load_text("someone/tiny")
    assert torch.equal(loaded.module.bert.pooler.dense.weight, tiny("bert", seed=6).bert.pooler.dense.weight)
    assert loaded.module(**batch("bert")).logits.shape == (3, 3)


@pytest.mark.parametrize("family", ["vit", "timm-vit", "timm-convnext"])
def test_a_size_that_cuts_patches_is_refused(family, tmp_path):
    save = save_timm_folder if family in TIMM else save_image_folder
    folder = save(tmp_path, family)
    source = f"timm:{folder}" if family in TIMM else str(folder)
    with pytest.raises(ModelError, match=r"task\.image_size: 30 pixels.* 4 x 4, .*last 2 pixels.*: 28 or 32\.$"):
        load_image_classifier(source, id2label=ABC, image_size=30)
