"""Payloads in every place where some library would unpickle one: none is opened, whatever the verb."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from safetensors.torch import load_file

from finetune.cached_arrays import ArrayCache
from finetune.cli import main
from finetune.config import dump
from finetune.errors import ModelError
from finetune.hub import reload
from finetune.models import from_timm
from finetune.models.loading import load_text_classifier
from finetune.models.sources import resolve
from finetune.policies import Checkpointing
from finetune.running import prepare, train
from finetune.speed import Speed
from finetune.strategies import LoRA
from tests.runs import config, text_task
from tests.tiny_models import save_timm_folder

SHARDS = '{"metadata": {}, "weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}'


class Payload:
    """Makes a file in the working folder when it is unpickled."""

    def __reduce__(self):
        return open, ("payload-ran", "w")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model, its data, a configuration, a finished run of all weights and of an adapter, and one that was cut."""
    folder, before = tmp_path_factory.mktemp("base"), Path.cwd()
    os.chdir(folder)
    try:
        task = text_task(Path())
        common = {"length": "4 steps", "checkpoint": Checkpointing(every="2 steps"), "speed": Speed(cache_folder="c")}
        for name, changes in (("done", {}), ("lora", {"strategy": LoRA(rank=2)}), ("cut", {})):
            Path(f"{name}.yaml").write_text(dump(config(task, output_dir=name, **{**common, **changes})))
            prepared = prepare(f"./{name}.yaml", function=None, files=(), overrides=())
            train(prepared, existing="refuse")
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def place(base, tmp_path, monkeypatch, noted):
    shutil.copytree(base, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(tmp_path / "place")
    return Path()


@pytest.fixture
def cli(capsys):
    def ran(*words):
        with pytest.raises(SystemExit) as end:
            main(argv=list(words))
        return end.value.code, capsys.readouterr().err

    return ran


def unfinished():
    """``cut`` as a run that was killed after its last checkpoint."""
    shutil.rmtree("cut/model")
    log = Path("cut/log.jsonl")
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if '"ended"' not in line))


def plant(path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(pickle.dumps(Payload()))


def assert_nothing_ran(noted):
    assert noted() == [] and not Path("payload-ran").exists()


PICKLES = ["pytorch_model.bin", "model.pt", "pytorch_model.pth", "model.ckpt", "weights.pkl", "model.safetensors"]


@pytest.mark.parametrize("slot", [*PICKLES, "pytorch_model-00001-of-00001.bin"])
def test_in_place_of_the_weights(slot, place, cli, noted):
    for folder in ("bert", "done/model"):
        Path(folder, "model.safetensors").unlink()
        plant(f"{folder}/{slot}")
        if "-of-" in slot:
            Path(folder, "pytorch_model.bin.index.json").write_text(SHARDS)
    for words in (["plan", "./done.yaml"], ["train", "./done.yaml", "output_dir=new"], ["evaluate", "done"]):
        code, err = cli(*words, *(["--split", "validation"] if words[0] == "evaluate" else []))
        assert (code, err.count("\n")) == (2, 1) and "pickle" in err, (words, err)
    code, err = cli("publish", "done", "user/name", "--dry-run")
    assert code in (2, 69) and "error: " in err
    assert not Path("new").exists()
    assert_nothing_ran(noted)


def test_beside_the_weights(place, cli, noted):
    for slot in [*PICKLES[:-1], "training_args.bin", "spiece.model", "adapter_model.bin"]:
        for folder in ("bert", "done/model", "lora/model"):
            plant(f"{folder}/{slot}")
    for words in (
        ["plan", "./lora.yaml"],
        ["train", "./done.yaml", "output_dir=new"],
        ["evaluate", "done", "--split", "validation"],
        ["evaluate", "lora", "--split", "validation"],
    ):
        code, err = cli(*words)
        assert code == 0, err
    assert_nothing_ran(noted)


def test_in_place_of_an_adapter(place, cli, noted):
    Path("lora/model/adapter_model.safetensors").unlink()
    plant("lora/model/adapter_model.bin")
    code, err = cli("evaluate", "lora", "--split", "validation")
    assert code == 2 and "lacks adapter_model.safetensors (it has 'adapter_model.bin', a pickle" in err
    code, err = cli("publish", "lora", "user/name", "--dry-run")
    assert code == 69, err
    assert_nothing_ran(noted)


ELSEWHERE = {"prompt_tuning_init": "ONLY_SOURCE_SHARED", "prompt_tuning_init_state_dict_path": "elsewhere.bin"}
ADAPTERS = {
    "of-prompts": {"peft_type": "MULTITASK_PROMPT_TUNING", "num_virtual_tokens": 2, **ELSEWHERE},
    "of-adapters": {"peft_type": "XLORA", "hidden_size": 32, "use_cache": False, "adapters": {"a": "elsewhere"}},
    "of-a-module": {"megatron_config": {"a": 1}, "megatron_core": "megatron.evil"},
    "of-nothing": {"peft_type": None},
    "of-several": {"peft_type": ["LORA"]},
}


@pytest.mark.parametrize("case", ADAPTERS)
def test_an_adapter_opens_no_other_file(case, place, cli, noted):
    plant("elsewhere.bin")
    plant("elsewhere/adapter_model.bin")
    path = Path("lora/model/adapter_config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | ADAPTERS[case]))
    for words in (["evaluate", "lora", "--split", "validation"], ["publish", "lora", "user/name", "--dry-run"]):
        code, err = cli(*words)
        assert code in (2, 69) and "is not read here" in err and err.count("\n") == 1, err
    assert_nothing_ran(noted)


def test_an_adapter_that_does_not_fit_is_one_message(place, cli, noted):
    path = Path("lora/model/adapter_config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"r": 3}))
    code, err = cli("evaluate", "lora", "--split", "validation")
    assert code == 2 and "cannot be loaded" in err and err.count("\n") == 1, err


def named_by_the_index(folder):
    names = load_file(folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../../elsewhere.bin")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")


def named_by_the_configuration(folder):
    settings = json.loads((folder / "config.json").read_text()) | {"transformers_weights": "adapter_model.bin"}
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("breaks", [named_by_the_index, named_by_the_configuration])
def test_what_is_published_names_no_weights_elsewhere(breaks, place, cli, noted):
    """The fresh process that opens them once more would read them."""
    breaks(Path("done/model"))
    plant("elsewhere.bin")
    code, err = cli("publish", "done", "user/name", "--dry-run")
    assert code == 69 and "names weights that are no safetensors file in it" in err, err
    breaks(Path("bert"))
    code, err = cli("publish", "lora", "user/name", "--dry-run")
    assert code == 69 and "model folder 'bert' names weights" in err, err
    assert_nothing_ran(noted)


def test_a_published_folder_is_opened_without_asking_for_trust(place, monkeypatch, noted):
    """transformers asks on the terminal, and takes a "y" from a pipe."""
    settings = json.loads(Path("bert/config.json").read_text())
    settings |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}
    Path("bert/config.json").write_text(json.dumps(settings))
    Path("bert/evil.py").write_text("open('payload-ran', 'w')\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    options = {"library": "transformers", "kind": "SequenceClassification", "classes": 2}
    with pytest.raises(ValueError, match="trust_remote_code"):
        reload.load(Path("lora/model"), base="bert", **options)
    with pytest.raises(ValueError, match="trust_remote_code"):
        reload.load(Path("bert"), base="", **options)
    assert_nothing_ran(noted)


def test_weights_of_timm_that_are_only_a_pickle_are_refused():
    with pytest.raises(ModelError, match=r"only as a pickle \(https://.*\.pth\)"):
        from_timm._check_no_pickle(resolve("timm:legacy_senet154"))
    from_timm._check_no_pickle(resolve("timm:resnet18"))


def on_the_hub(folder, monkeypatch):
    """The folder as ``user/name`` in the cache of the Hub."""
    snapshot = Path("hub/models--user--name/snapshots", "a" * 40).absolute()
    shutil.copytree(folder, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(Path("hub").absolute()))
    return snapshot


def test_the_base_of_an_adapter_is_found_on_the_hub_with_timm_too(place, monkeypatch):
    save_timm_folder(Path("timm"))
    on_the_hub(Path("timm"), monkeypatch)
    assert reload._base("timm:user/name", library="timm", kind="ImageClassification", classes=3).num_classes == 3


def test_an_index_on_the_hub_that_names_pickles(place, monkeypatch, noted):
    snapshot = on_the_hub(Path("bert"), monkeypatch)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors.index.json").write_text(SHARDS)
    plant(snapshot / "pytorch_model-00001-of-00001.bin")
    with pytest.raises(ModelError, match="names weights that are no safetensors: 'pytorch_model-00001-of-00001.bin'"):
        load_text_classifier("user/name", num_labels=2)
    assert_nothing_ran(noted)


def test_in_a_checkpoint(place, cli, noted):
    """Beside its files, where others keep them, and in place of each of them."""
    unfinished()
    shutil.copytree("cut", "whole")
    newest = max(Path("whole/checkpoints").glob("step-*")).relative_to("whole")
    names = sorted(path.name for path in Path("whole", newest).iterdir())
    assert len(names) > 4
    for name in names:
        shutil.rmtree("cut")
        shutil.copytree("whole", "cut")
        for slot in ("optimizer.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", ".metadata", "__0_0.distcp"):
            plant(Path("cut", newest, slot))
        plant(Path("cut", newest, name))
        code, err = cli("train", "./cut.yaml", "--resume")
        assert code == 0 and "passed over the checkpoint" in err and "\ngoing on after step " in err, (name, err)
    assert_nothing_ran(noted)


def test_in_all_checkpoints(place, cli, noted):
    unfinished()
    for step in Path("cut/checkpoints").glob("step-*"):
        for path in step.iterdir():
            plant(path)
    assert cli("train", "./cut.yaml", "--resume")[0] == 74
    assert_nothing_ran(noted)


def test_in_an_entry_of_the_cache(place, noted):
    cache = ArrayCache(Path("cache"), max_bytes=10**6)
    shapes = {"ids": ((5, 3), np.dtype(np.int32))}
    cache.create("0123456789abcdef", shapes).commit()
    files = [path for path in Path("cache").rglob("*") if path.is_file()]
    for path in files:
        plant(path)
        with pytest.warns(UserWarning, match="is damaged"):
            assert ArrayCache(Path("cache"), max_bytes=10**6).find("0123456789abcdef") is None
    assert len(files) > 1
    assert_nothing_ran(noted)


def test_an_array_of_the_cache_is_of_numbers(place):
    """One of objects is one of addresses, which its file could name."""
    cache = ArrayCache(Path("cache"), max_bytes=10**6)
    cache.create("0123456789abcdef", {"ids": ((5, 3), np.dtype(np.int64))}).commit()
    (path,) = Path("cache").rglob("manifest.json")
    document = json.loads(path.read_text())
    document["manifest"]["arrays"]["ids"]["dtype"] = "|O"
    document["checksum"] = xxhash.xxh3_128_hexdigest(json.dumps(document["manifest"], sort_keys=True).encode())
    path.write_text(json.dumps(document))
    with pytest.warns(UserWarning, match="no array of numbers"):
        assert ArrayCache(Path("cache"), max_bytes=10**6).find("0123456789abcdef") is None


@pytest.mark.parametrize("slot", ["tokenizer.json", "config.json", "tokenizer_config.json"])
def test_in_place_of_json(slot, place, cli, noted):
    plant(f"bert/{slot}")
    code, err = cli("plan", "./done.yaml")
    assert code == 2 and err.startswith("error: "), err
    assert_nothing_ran(noted)


def test_when_a_published_folder_is_opened_again(place, noted):
    """By the plain libraries, which would both take a pickle: of the adapter, and of its base."""
    Path("lora/model/adapter_model.safetensors").unlink()
    plant("lora/model/adapter_model.bin")
    with pytest.raises(SystemExit, match=r"no adapter_model\.safetensors"):
        reload.load(Path("lora/model"), base="bert", library="transformers", kind="SequenceClassification", classes=2)
    save_timm_folder(Path("timm"))
    Path("timm/model.safetensors").unlink()
    plant("timm/pytorch_model.bin")
    with pytest.raises(SystemExit, match=r"no model\.safetensors"):
        reload._base("timm:timm", library="timm", kind="ImageClassification", classes=3)
    assert_nothing_ran(noted)


def test_convert_reads_tensors_alone(place, cli, noted):
    torch.save({"a": torch.zeros(1), "b": Payload()}, "weights.pt")
    code, err = cli("convert", "weights.pt", "--i-trust-this-file")
    assert code == 2 and "it holds more than tensors" in err, err
    assert not Path("weights.safetensors").exists()
    assert_nothing_ran(noted)


def test_the_payload_would_run(place, noted):
    plant("it")
    with open("it", "rb") as file:
        pickle.load(file)
    assert Path("payload-ran").exists() and noted()
