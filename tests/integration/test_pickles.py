"""Payloads in every place where some library would unpickle one: none is opened, whatever the verb."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.cached_arrays import ArrayCache
from finetune.cli import main
from finetune.config import dump
from finetune.hub import reload
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
        assert code == 0 and "passed over the checkpoint" in err, (name, err)
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
