from __future__ import annotations

import contextlib
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from finetune.errors import ConfigError, PublishError, RunFolderError
from finetune.hub.contents import check_private, contents
from finetune.hub.publish import Delivery, publish
from finetune.hub.reload import difference
from finetune.hub.reload_check import check_reload
from finetune.hub.upload import Visibility, upload
from finetune.model_cards.card import PLACEHOLDER, CardFacts, model_card
from finetune.model_cards.probe import PROBE, write_probe
from tests.loopback_hub import LoopbackHub
from tests.tiny_models import batch, save_image_folder, save_text_folder, save_timm_folder, tiny

REPO = "somebody/reviews"
TEXT = CardFacts("reviews", "text_classification", "transformers", "", "full", "own", labels=("a", "b", "c"))
IMAGES = replace(TEXT, task="image_classification")


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """Only a loopback server is met; huggingface_hub's own waits are cut to nothing."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)  # once a process, by another way
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def hub(monkeypatch):
    with LoopbackHub(lfs=True) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(scope="module")
def text_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("text") / "run"
    save_text_folder(run / "model", head=True)
    (run / "model" / "README.md").write_text(model_card(TEXT))
    (run / "model" / "training_args.bin").write_bytes(b"not ours")
    return probed(run, tiny("bert"), batch("bert"))


@pytest.fixture
def small(tmp_path):
    """A folder as it is staged, without a model that opens."""
    for name in ("README.md", "config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}" + name)
    return tmp_path


def probed(run, model, inputs, **options):
    with torch.inference_mode():
        output = model(**inputs) if options.get("library") != "timm" else model(inputs["pixel_values"])
    write_probe(run, inputs=inputs, logits=getattr(output, "logits", output), **options)
    return run


def executed(card, repo, *, base=""):
    """What the card's first code block prints, its names replaced by folders."""
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    code = code.replace(f"hf-hub:{PLACEHOLDER}", f"local-dir:{repo}").replace(PLACEHOLDER, str(repo))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code.replace("BASE", base), "card", "exec"), {})
    return printed.getvalue()


@pytest.fixture
def photo(tmp_path, monkeypatch):
    from PIL import Image

    Image.new("RGB", (20, 20), "red").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)


def test_publish_does_what_a_dry_run_says_in_one_commit_and_no_second(text_run, hub):
    planned = publish(text_run, REPO, delivery=Delivery.DRY_RUN)
    assert hub.calls == [] and planned.commit == "" and planned.card == text_run / "model" / "README.md"
    done = publish(text_run, REPO, visibility=Visibility.PRIVATE)
    assert done == planned._replace(commit=done.commit) and done.url == f"{hub.url}/{REPO}"
    repo = hub.repos[REPO]
    assert repo.private and len(repo.commits) == 2 and repo.commits[-1].oid == done.commit
    expected = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert set(repo.files) == set(done.files) == expected and done.left_out == ("training_args.bin",)
    model = text_run / "model"
    assert all(repo.files[name] == (model / name).read_bytes() for name in expected - {"README.md"})
    assert f'model="{REPO}"' in repo.files["README.md"].decode()
    assert PLACEHOLDER in (model / "README.md").read_text() and not list(text_run.glob(".publish-*"))
    assert upload_again(text_run, hub, done.files) == done.commit and len(repo.commits) == 2


def upload_again(run, hub, files):
    """The same content once more, without waiting for the reload check."""
    for name in files:
        (run / "again").mkdir(exist_ok=True)
        (run / "again" / name).write_bytes(hub.repos[REPO].files[name])
    return upload(run / "again", REPO)


def test_calls_are_those_that_the_loopback_hub_documents(small, hub):
    upload(small, REPO)
    assert [re.sub(r"objects/\w{64}", "objects/SHA", call) for call in hub.calls] == [
        "POST /api/repos/create",
        f"GET /api/models/{REPO}",
        "POST /api/validate-yaml",
        "POST /api/validate-yaml",
        f"POST /api/models/{REPO}/preupload/main",
        f"POST /{REPO}.git/info/lfs/objects/batch",
        "PUT /objects/SHA",
        "POST /verify",
        f"POST /api/models/{REPO}/commit/main",
    ]


@pytest.mark.parametrize("fault", [503, "dropped", "lost"])
@pytest.mark.parametrize("call", range(9))
def test_a_fault_at_any_call_ends_in_exactly_one_commit(small, hub, call, fault):
    hub.faults = {call: fault}
    upload(small, REPO, waits=(0, 0))
    assert len(hub.repos[REPO].commits) == 2 and len(hub.repos[REPO].files) == 3


@pytest.mark.parametrize("fault", [None, "lost", 429])
def test_the_xet_pipeline_makes_one_commit_too(small, hub, monkeypatch, fault):
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    hub.lfs, hub.faults = False, {4: fault} if fault else {}  # regular files need no Xet server
    upload(small, REPO, waits=(0,))
    assert hub.calls[4].endswith("/commit/main") and len(hub.repos[REPO].commits) == 2
    upload(small, REPO)
    assert len(hub.repos[REPO].commits) == 2


def test_a_hub_that_stays_busy_is_an_error_that_says_how_to_retry(text_run, hub):
    hub.always = 503
    with pytest.raises(PublishError, match="could not be reached, or was busy") as fault:
        upload(text_run / "model", REPO, waits=(0,))
    assert fault.value.exit_code == 69
    assert hub.calls == ["POST /api/repos/create"] * 2


def test_a_refused_token_is_said_and_not_shown(small, hub):
    hub.always = 401
    with pytest.raises(PublishError, match="write access to somebody/reviews") as fault:
        upload(small, REPO)
    assert "xxxx" not in str(fault.value) and len(hub.calls) < 4
    assert hub.tokens == {"Bearer hf_" + "x" * 34}


def test_a_public_repository_is_not_taken_for_a_private_one(small, hub):
    upload(small, REPO)
    with pytest.raises(PublishError, match="exists and is public"):
        upload(small, REPO, visibility=Visibility.PRIVATE)


def test_offline_mode_and_no_token_are_said(small, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PublishError, match="HF_HUB_OFFLINE is set"):
        upload(small, REPO)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(small / "none"))
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PublishError, match="hf auth login"):
        upload(small, REPO)
    assert hub.calls == []


@pytest.mark.parametrize("name", ["reviews", "a/b/c", "../x/y", "a/..", "a b/c", "a/b--c", ""])
def test_a_repository_is_user_and_name(text_run, name):
    with pytest.raises(ConfigError, match="no repository of the Hub"):
        publish(text_run, name)


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="no model/ folder"):
        publish(tmp_path, REPO)
    (tmp_path / "model").mkdir()
    with pytest.raises(PublishError, match="Nothing to publish"):
        publish(tmp_path, REPO)


def test_links_are_refused(small):
    (small / "vocab.txt").symlink_to("/etc/hostname")
    with pytest.raises(PublishError, match="vocab.txt.*not a plain file"):
        contents(small)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", '{"_name_or_path": "/srv/models/bert"}', "config.json: an absolute path in _name_or_path"),
        ("adapter_config.json", '{"a": [{"b": "C:\\\\x\\\\y"}]}', "adapter_config.json: an absolute path in a.b"),
        ("config.json", '{"where": "/srv/My Models/bert"}', "config.json: an absolute path in where"),
        ("config.json", '{"where":', "config.json is not JSON that can be read"),
        ("config.json", "[" * 100_000, "config.json is not JSON that can be read"),
        ("README.md", f"see {Path.cwd()}/x.csv", "README.md: a path of this machine"),
        ("README.md", "hf_" + "a" * 34, "README.md: an access token"),
        ("vocab.txt", "a\ncanary-of-the-env\nb", "vocab.txt: an access token or another secret"),
    ],
)
def test_what_is_private_is_refused_without_showing_it(small, monkeypatch, name, text, message):
    monkeypatch.setenv("SOME_API_KEY", "canary-of-the-env")
    (small / "config.json").write_text('{"id2label": {"0": "/m/0dgw9r"}}')
    (small / "README.md").write_text("A model. and/or 3/4 https://huggingface.co/a/b")
    for file in ("model.safetensors", "vocab.txt"):
        (small / file).write_bytes((2).to_bytes(8, "little") + b"{}")
    names = contents(small).files
    check_private(small, names, run=small)
    (small / name).write_text(text)
    with pytest.raises(PublishError, match=re.escape(message)) as fault:
        check_private(small, contents(small).files, run=small)
    assert "canary" not in str(fault.value) and "aaaa" not in str(fault.value) and "/srv" not in str(fault.value)


def test_a_user_who_is_called_the_same_on_the_hub_may_publish(small, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "user1")
    (small / "README.md").write_text("Load it with from_pretrained('user1/mine')")
    (small / "config.json").write_text("{}")
    (small / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    names = contents(small).files
    check_private(small, names, run=small, owner="user1")
    with pytest.raises(PublishError, match=r"README.md: the name of this user\nEdit these files in .*model "):
        check_private(small, names, run=small, owner="somebody")


def test_a_damaged_model_is_refused(text_run, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((text_run / "model" / name).read_bytes())
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-1] ^= 0x40  # of the last float's exponent
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(PublishError, match="gives other logits"):
        check_reload(tmp_path, text_run / PROBE)
    with pytest.raises(PublishError, match="is missing beside the model"):
        check_reload(tmp_path, tmp_path / PROBE)


def test_the_cards_of_whole_models_open_them(text_run, tmp_path, photo):
    text, image = text_run / "model", save_image_folder(tmp_path / "vit" / "model", head=True)
    assert "score" in executed(model_card(TEXT), text)
    assert "tensor" in executed(model_card(replace(TEXT, task="text_regression")), text)
    assert "score" in executed(model_card(IMAGES), image)
    assert difference(image, probed(image.parent, tiny("vit"), batch("vit")) / PROBE) < 1


def test_a_timm_model_opens_with_timm(tmp_path, photo):
    folder = save_timm_folder(tmp_path / "run" / "model", labels=("a", "b", "c"))
    run = probed(folder.parent, tiny("timm-vit"), batch("timm-vit"), library="timm")
    assert difference(folder, run / PROBE) < 1
    assert executed(model_card(replace(IMAGES, library="timm")), folder).strip() in ("a", "b", "c")


@pytest.mark.parametrize("family", ["bert", "vit", "timm-vit"])
def test_an_adapter_opens_on_its_base(tmp_path, photo, family):
    from peft import LoraConfig, get_peft_model

    save = {"bert": save_text_folder, "vit": save_image_folder, "timm-vit": save_timm_folder}[family]
    base, folder = str(save(tmp_path / "base")), tmp_path / "run" / "model"
    head = "head" if family == "timm-vit" else "classifier"
    adapted = get_peft_model(tiny(family), LoraConfig(target_modules="all-linear", modules_to_save=[head])).eval()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        if (tmp_path / "base" / name).exists():
            shutil.copy(tmp_path / "base" / name, folder)
    library = "timm" if family == "timm-vit" else "transformers"
    place = f"timm:{base}" if library == "timm" else base
    run = probed(folder.parent, adapted, batch(family), base=place, library=library)
    assert difference(folder, run / PROBE) < 1
    facts = replace(TEXT if family == "bert" else IMAGES, library="peft", base_model="BASE", base_library=library)
    assert "tensor" in executed(model_card(facts), folder, base=f"local-dir:{base}" if library == "timm" else base)
