"""Model folders and runs that strangers made: nothing outside them is read, and nothing of theirs runs unasked."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from datasets import Dataset

from finetune.cli import main
from finetune.config.foreign import resolve_run
from finetune.data.arrow_rows import read_saved
from finetune.errors import ConfigError, DataError, ModelError
from finetune.hub.conversion import convert
from finetune.models.sources import check_source, resolve
from finetune.tasks.pretrained import _timm_saved
from tests.forked import ended_child
from tests.runs import config, run, text_task
from tests.tiny_models import save_text_folder, save_timm_folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_text_folder(folder / "text")
    save_timm_folder(folder / "timm")
    return folder


@pytest.fixture
def folder(models, tmp_path):
    shutil.copytree(models / "text", tmp_path / "text")
    return tmp_path / "text"


def index(folder, name):
    """Weights by an index that names them so."""
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    weights = {"weight_map": {"bert.embeddings.word_embeddings.weight": name}, "metadata": {}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(weights))


def linked(folder, name, target):
    (folder / name).unlink()
    (folder / name).symlink_to(target)


def adapted(folder):
    made = {"peft_type": "LORA", "base_model_name_or_path": "../elsewhere"}
    (folder / "adapter_config.json").write_text(json.dumps(made))


def renamed_weights(folder, name):
    settings = json.loads((folder / "config.json").read_text()) | {"transformers_weights": name}
    (folder / "config.json").write_text(json.dumps(settings))


def pickled(folder):
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))


def large_configuration(folder):
    """Too large for a look, and transformers would open the pickle."""
    renamed_weights(folder, "adapter_model.bin")
    path = folder / "config.json"
    path.write_text(" " * (17 * 2**20) + path.read_text())


def many_labels(folder):
    settings = json.loads((folder / "config.json").read_text()) | {"num_labels": 10**10}
    (folder / "config.json").write_text(json.dumps(settings))


def linked_templates(folder):
    (folder.parent / "templates").mkdir()
    (folder / "additional_chat_templates").symlink_to("../templates")


def linked_template(folder):
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "a.jinja").symlink_to("/etc/passwd")


OUT_OF_IT = {
    "large-config": (large_configuration, "config.json is larger than 16,777,216 bytes"),
    "many-labels": (many_labels, "config.json has num_labels: 10000000000, at most 1,000,000"),
    "pipe": (lambda f: os.mkfifo(f / "added_tokens.json"), "added_tokens.json is no file"),
    "link-codes": (lambda f: (f / "bpe.codes").symlink_to("/etc/passwd"), "bpe.codes is a link out of it"),
    "link-templates": (linked_templates, "additional_chat_templates is a link out of it"),
    "link-template": (linked_template, "a.jinja is a link out of it"),
    "index-parent": (lambda f: index(f, "../outside.safetensors"), "no safetensors file in it: '../outside"),
    "index-absolute": (lambda f: index(f, str(f.parent / "outside.safetensors")), "no safetensors file in it"),
    "index-pickle": (lambda f: index(f, "pytorch_model.bin"), "no safetensors file in it"),
    "index-number": (lambda f: index(f, 3), "no safetensors file in it"),
    "index-gone": (lambda f: index(f, "model-1.safetensors"), "lacks model-1.safetensors, which"),
    "weights-named": (lambda f: renamed_weights(f, "../outside.safetensors"), "no safetensors file in it"),
    "weights-bin": (lambda f: renamed_weights(f, "adapter_model.bin"), "no safetensors file in it"),
    "link-weights": (
        lambda f: (shutil.copy(f / "model.safetensors", f.parent / "x"), linked(f, "model.safetensors", "../x")),
        "model.safetensors is a link out of it",
    ),
    "link-config": (lambda f: linked(f, "config.json", "/etc/passwd"), "config.json is a link out of it"),
    "link-tokenizer": (lambda f: linked(f, "tokenizer.json", "/etc/passwd"), "tokenizer.json is a link out of it"),
    "adapter-inside": (adapted, "is a folder with an adapter, not a model"),
    "pickle-renamed": (pickled, "model.safetensors is a pickle under another name"),
}


@pytest.mark.parametrize("case", OUT_OF_IT)
def test_a_folder_that_leads_out_of_itself_is_refused_before_it_is_read(case, folder):
    breaks, said = OUT_OF_IT[case]
    breaks(folder)
    with pytest.raises(ModelError, match=said) as caught:
        check_source(str(folder), processor="tokenizer")
    assert "\n" not in str(caught.value)


def test_what_is_not_weights_may_be_missing_for_scratch_but_leads_nowhere_either(folder):
    linked(folder, "config.json", "/etc/passwd")
    with pytest.raises(ModelError, match="is a link out of it"):
        check_source(str(folder), processor="tokenizer", scratch=True)


def test_links_within_a_folder_and_within_the_cache_of_the_hub_are_as_good_as_files(folder):
    snapshot = folder.parent / "models--user--name" / "snapshots" / ("a" * 40)
    (folder / "logs").symlink_to("/tmp")  # of no library
    blobs = snapshot.parent.parent / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        path.rename(blobs / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert check_source(str(snapshot), processor="tokenizer").is_folder
    linked(snapshot, "config.json", "../../../outside.json")
    with pytest.raises(ModelError, match="config.json is a link out of it"):
        check_source(str(snapshot), processor="tokenizer")


def test_a_configuration_of_timm_that_is_a_pipe_is_not_waited_for(models, tmp_path):
    shutil.copytree(models / "timm", tmp_path / "timm")
    (tmp_path / "timm" / "config.json").unlink()
    os.mkfifo(tmp_path / "timm" / "config.json")
    place = resolve(f"timm:{tmp_path / 'timm'}")
    assert ended_child(lambda: raised(ModelError, _timm_saved, place)).code == 0


def raised(kind, work, *arguments):
    with pytest.raises(kind, match=r"config\.json is no file"):
        work(*arguments)


def test_a_folder_that_is_only_called_like_the_cache_is_as_any_other(folder):
    snapshot = folder.parent / "snapshots" / "mine"
    snapshot.parent.mkdir()
    folder.rename(snapshot)
    linked(snapshot, "config.json", "../../outside.json")
    with pytest.raises(ModelError, match="config.json is a link out of it"):
        check_source(str(snapshot), processor="tokenizer")


def test_a_whole_index_is_taken(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    weights = {"weight_map": {"a": "model-00001-of-00001.safetensors"}, "metadata": {}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(weights))
    assert check_source(str(folder), processor="tokenizer").is_folder


@pytest.mark.parametrize("kind", ["text", "timm"])
def test_other_safetensors_beside_a_pickle_do_not_stand_for_the_weights(kind, models, tmp_path):
    """Both libraries would take ``pytorch_model.bin`` then."""
    shutil.copytree(models / kind, tmp_path / kind)
    (tmp_path / kind / "model.safetensors").rename(tmp_path / kind / "pytorch_model.bin")
    (tmp_path / kind / "other.safetensors").write_bytes(b"")
    source = f"timm:{tmp_path / kind}" if kind == "timm" else str(tmp_path / kind)
    with pytest.raises(ModelError, match=r"lacks model.safetensors \(.*finetune convert .*--i-trust-this-file"):
        check_source(source, processor="image processor" if kind == "timm" else "tokenizer")


EVIL = """
from pathlib import Path
from finetune import RunConfig, TextClassification
Path({marker!r}).touch()
def mine() -> RunConfig:
    return RunConfig(TextClassification(model='m', data='d'))
"""


@pytest.fixture
def stranger(tmp_path):
    """A finished run whose configuration is one that names code; and what exists once that code has run."""
    folder, marker = tmp_path / "run", tmp_path / "ran"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "README.md").touch()
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)))
    return folder, marker


def evaluated(*words):
    with pytest.raises(SystemExit) as end:
        main(argv=["evaluate", *map(str, words)])
    return end.value.code


def metrics(folder, entry):
    task = {"name": "text_classification", "model": "m", "data": {"train": "x.csv"}}
    return {"task": {"name": "l2_sp", "base": task | {"metrics": ["accuracy", entry]}}}


NAMES_CODE = {
    "recipe": lambda f: {"recipe": str(f / "evil.py"), "function": "mine"},
    "recipe-beside": lambda f: {"recipe": os.path.relpath(f / "evil.py")},
    "metric": lambda f: metrics(f, str(f / "evil.py")),
    "metric-source": lambda f: metrics(f, {"source": str(f / "evil.py"), "direction": "maximize"}),
    "metric-stage": lambda f: {"stages": [{"name": "a", **metrics(f, str(f / "evil.py"))}]},
}


@pytest.mark.parametrize("case", NAMES_CODE)
def test_code_that_a_run_folder_names_runs_only_when_it_is_trusted(case, stranger, capsys):
    folder, marker = stranger
    (folder / "config.yaml").write_text(json.dumps(NAMES_CODE[case](folder)))
    assert evaluated(folder) == 2 and not marker.exists()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "names code, which would run here" in said and "--trust-code" in said
    assert "evil.py" in said
    evaluated(folder, "--trust-code")
    assert "names code" not in capsys.readouterr().err
    assert marker.exists() or "metric" in case  # which are loaded when there is something to score


def test_a_recipe_of_this_package_is_no_stranger(tmp_path):
    (tmp_path / "config.yaml").write_text("recipe: bert_text\nfunction: lora\n")
    assert resolve_run(tmp_path, code="refuse").strategy.rank


def test_python_says_it_too(stranger):
    folder, marker = stranger
    (folder / "config.yaml").write_text(json.dumps({"recipe": str(folder / "evil.py")}))
    with pytest.raises(ConfigError, match="code='run'"):
        resolve_run(folder, code="refuse")
    assert not marker.exists()
    assert resolve_run(folder, code="run").task.model == "m" and marker.exists()


def test_a_configuration_that_the_user_names_runs_as_it_did(stranger, capsys):
    folder, marker = stranger
    (folder / "mine.yaml").write_text(json.dumps({"recipe": str(folder / "evil.py")}))
    with pytest.raises(SystemExit) as end:
        main(argv=["show", str(folder / "mine.yaml")])
    assert end.value.code == 0 and marker.exists()


def test_code_in_a_model_folder_is_not_imported(folder, tmp_path):
    settings = json.loads((folder / "config.json").read_text())
    settings["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    task = text_task(tmp_path)
    run(type(task)(model=str(folder), data=task.data, max_length=32), length="1 steps")
    assert not (tmp_path / "ran").exists()


def test_the_vocabulary_of_a_tokenizer_comes_from_its_folder(folder, tmp_path):
    """transformers 46279: a file named by tokenizer_config.json was read, saved and published."""
    (tmp_path / ".env").write_text("SECRET=canary-of-a-file")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"vocab_file": "../.env", "added_tokens_file": "../.env", "chat_template_file": "../.env"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    task = text_task(tmp_path)
    made = config(type(task)(model=str(folder), data=task.data, max_length=32), length="1 steps")
    run(made.task, length="1 steps", output_dir=str(tmp_path / "run"))
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or b"canary-of-a-file" not in path.read_bytes(), path


@pytest.mark.parametrize("name", ["../outside.arrow", "/outside.arrow", "link.arrow"])
def test_a_saved_data_set_has_its_rows_in_its_folder(name, tmp_path):
    saved = tmp_path / "saved"
    Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]}).save_to_disk(saved)
    (saved / "data-00000-of-00001.arrow").rename(tmp_path / "outside.arrow")
    (saved / "link.arrow").symlink_to(tmp_path / "outside.arrow")
    state = json.loads((saved / "state.json").read_text())
    state["_data_files"] = [{"filename": f"{tmp_path}{name}" if name.startswith("/") else name}]
    (saved / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="names a file that is not in that folder"):
        read_saved(saved, "saved")


def test_labels_are_no_paths(tmp_path):
    task = text_task(tmp_path)
    for split in ("train", "validation"):
        file = tmp_path / f"{split}-labels.csv"
        text = open(getattr(task.data, split)).read()
        file.write_text(text.replace("positive", "../../out").replace("negative", "/tmp/out"))
    data = {split: str(tmp_path / f"{split}-labels.csv") for split in ("train", "validation")}
    before = set(tmp_path.iterdir())
    done = run(type(task)(model=task.model, data={**data, "text": "text", "label": "label"}, max_length=32),
               length="1 steps", output_dir=str(tmp_path / "inner" / "run"))  # fmt: skip
    assert set(tmp_path.iterdir()) - before == {tmp_path / "inner"} and set((tmp_path / "inner").iterdir()) == {
        done.folder
    }


def test_convert_writes_what_the_library_then_reads(models, tmp_path):
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "text"
    shutil.copytree(models / "text", folder)
    before = load_file(folder / "model.safetensors")
    torch.save(before, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SystemExit) as end:
        main(argv=["convert", str(folder / "pytorch_model.bin")])
    assert end.value.code == 2 and not (folder / "model.safetensors").exists()
    assert convert(folder / "pytorch_model.bin") == folder / "model.safetensors"
    after = load_file(folder / "model.safetensors")
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert check_source(str(folder), processor="tokenizer").is_folder
    assert not [path for path in folder.iterdir() if path.name.startswith(".convert")]
    with pytest.raises(ModelError, match="exists already"):
        convert(folder / "pytorch_model.bin")
