"""Canaries in every place where secrets live, and every byte that all verbs write or print, a crash included."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from finetune.checkpoints.log import read_log
from finetune.cli import main
from finetune.cli.reporting import ended
from finetune.config import dump
from finetune.policies import Checkpointing
from finetune.redaction import redacted, secrets_in
from tests.forked import Acting
from tests.runs import config, replaced, run, text_task

CANARIES = {
    "HF_TOKEN": "hf_" + "Canary1" * 5,
    "WANDB_API_KEY": "canary2-of-the-tracker-0123",
    "AWS_SECRET_ACCESS_KEY": "canary3/of+the/cloud/0123456789",
    "proxy": "canary4-of-the-proxy",
    "netrc": "canary5-of-netrc",
    "token file": "hf_" + "Canary6" * 5,
    "address": "canary7-of-an-address",
    "yaml": "hf_" + "Canary8" * 5,
    "query": "canary9-of-a-query",
}
ADDRESS = f"https://me:{CANARIES['address']}@example.invalid/x.csv"
QUERY = f"https://example.invalid/x.csv?token={CANARIES['query']}"
PLANTED = {".netrc", "token", "secret.yaml", "key.yaml", "query.yaml"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder, a home and a temporary folder of this test, with canaries in environment and files."""
    for name in ("work", "home", "tmp"):
        (tmp_path / name).mkdir()
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, CANARIES[name])
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{CANARIES['proxy']}@127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "home" / ".netrc").write_text(f"machine huggingface.co login me password {CANARIES['netrc']}\n")
    (tmp_path / "home" / "token").write_text(CANARIES["token file"])
    monkeypatch.chdir(tmp_path / "work")
    task = text_task(Path().resolve())
    settings = yaml.safe_load(dump(config(task, length="2 steps", output_dir="run")))
    Path("plain.yaml").write_text(yaml.safe_dump(settings))
    Path("secret.yaml").write_text(yaml.safe_dump({**settings, "output_dir": f"runs/{CANARIES['yaml']}"}))
    Path("key.yaml").write_text(yaml.safe_dump({**settings, "hub_token": CANARIES["yaml"]}))
    Path("query.yaml").write_text(yaml.safe_dump({**settings, "task": {**settings["task"], "model": QUERY}}))
    return tmp_path


@pytest.fixture
def cli(capsys):
    def ran(*words):
        with pytest.raises(SystemExit) as end:
            main(argv=list(words))
        captured = capsys.readouterr()
        assert_no_canary("what it prints", (captured.out + captured.err).encode())
        return end.value.code, captured.err

    return ran


def assert_no_canary(where, data):
    found = [name for name, canary in CANARIES.items() if canary.encode() in data]
    assert not found, (where, found, data[:2000])


def assert_nothing_written(place):
    files = [path for path in place.rglob("*") if path.is_file() and path.name not in PLANTED]
    assert files
    for path in files:
        assert_no_canary(path, path.read_bytes())
        assert_no_canary("a name", str(path).encode())


def test_every_verb_that_does_its_work(place, cli):
    assert cli("recipes")[0] == cli("show", "bert_text")[0] == cli("cp", "bert_text")[0] == 0
    for words in (
        ["plan", "./plain.yaml"],
        ["train", "./plain.yaml"],
        ["evaluate", "run", "--split", "validation"],
        ["publish", "run", "me/tiny", "--dry-run"],
        ["lr-find", "./plain.yaml"],
        ["recommend", "./plain.yaml"],
        ["doctor"],
    ):
        code, err = cli(*words)
        assert code == 0 or words[0] in ("recommend", "lr-find"), (words, err)
    assert_nothing_written(place)


REFUSED = [
    ["./plain.yaml", f"task.data.train={ADDRESS}"],
    ["./plain.yaml", f"task.model={ADDRESS}"],
    ["./plain.yaml", f"task.data.train={QUERY}"],
    ["./plain.yaml", f"output_dir=runs/{CANARIES['WANDB_API_KEY']}"],
    ["bert_text", "--config", "secret.yaml"],
    ["bert_text", "--config", "query.yaml"],
]


@pytest.mark.parametrize("verb", ["show", "plan", "train", "lr-find", "recommend"])
def test_a_secret_in_a_configuration_is_refused_by_its_path(verb, place, cli):
    for words in REFUSED:
        code, err = cli(verb, *words)
        assert code == 2 and "holds a password or an access token; take it out" in err, (words, err)
        assert err.startswith(("error: task.", "error: output_dir", "error: 2 faults")), err
    for words in (["./key.yaml"], ["./plain.yaml", f"hub_token={CANARIES['yaml']}"], ["bert_text", ADDRESS]):
        assert cli(verb, *words)[0] == 2
    assert_nothing_written(place)


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "./plain.yaml", "bert_text", f"task.model={ADDRESS}"],
        ["compare", ADDRESS, "bert_text"],
        ["tune", "./plain.yaml", f"task.model={ADDRESS}"],
        ["tune", "./query.yaml"],
        ["evaluate", ADDRESS],
        ["evaluate", QUERY],
        ["publish", ADDRESS, "me/tiny"],
        ["publish", "run", ADDRESS],
        ["cp", ADDRESS],
        ["cp", "bert_text", ADDRESS],
        ["convert", ADDRESS],
        ["convert", ADDRESS, "--i-trust-this-file"],
        ["show", ADDRESS],
        ["show", ADDRESS, "--debug"],
        ["train", "bert_text", f"--token={CANARIES['yaml']}"],
        [CANARIES["yaml"]],
    ],
    ids=lambda words: f"{words[0][:8]}-{len(words)}",
)
def test_every_verb_that_refuses_its_words(words, place, cli):
    code, err = cli(*words)
    assert code == 2 and "error: " in err, err
    assert_nothing_written(place)


def test_a_crash(place, cli, monkeypatch):
    """The fault's text, the command's words and the traceback all have one."""
    secret = " ".join(CANARIES[name] for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"))

    def dumped(found):
        raise RuntimeError(f"the server at {ADDRESS} said {secret} {QUERY}")

    monkeypatch.setattr("finetune.config.dumping.dump_resolved", dumped)
    for debug in ([], ["--debug"]):
        code, err = cli("show", "bert_text", *debug)
        assert code == 1 and "unexpected RuntimeError: the server at https://***@example.invalid" in err
    kept = list((place / "tmp").glob("finetune-crash-*/crash-rank0.log"))
    assert len(kept) == 2 and all("RuntimeError" in path.read_text() for path in kept)
    assert all(path.stat().st_mode & 0o077 == 0 == path.parent.stat().st_mode & 0o077 for path in kept)
    assert_nothing_written(place)


def fail():
    raise RuntimeError(f"{ADDRESS} {CANARIES['HF_TOKEN']}")


def test_a_run_that_crashed_says_so_in_its_own_folder(place, capsys):
    """And not through a link that somebody has put there."""
    task, victim = text_task(Path().resolve()), Path("victim")
    victim.write_text("untouched")

    def work(**changes):
        run(Acting(task, 3, fail), output_dir="crashed", checkpoint=Checkpointing(every="1 steps"), **changes)

    assert ended(work, ["train"]) == 1
    assert read_log(Path("crashed/log.jsonl"))[-1]["cause"].startswith("RuntimeError: https://***@example.invalid")
    kept = Path("crashed/crash-rank0.log")
    assert f"the traceback is in {kept}" in capsys.readouterr().err and "in fail" in kept.read_text()
    kept.unlink()
    kept.symlink_to(victim.resolve())
    assert ended(lambda: work(existing="resume"), ["train"]) == 1
    assert not kept.is_symlink() and "in fail" in kept.read_text() and victim.read_text() == "untouched"
    assert_nothing_written(place)


class Unloadable(Acting):
    """A task that fails before there is a run folder."""

    def load_model(self):
        fail()


def test_a_crash_writes_into_no_folder_that_is_not_the_runs_own(place):
    task = text_task(Path().resolve())
    for folder in ("strange", "empty"):
        Path(folder).mkdir()
    Path("strange/file").touch()
    assert ended(lambda: run(task, output_dir="strange"), ["train"]) == 2
    assert ended(lambda: run(Unloadable(task), output_dir="empty"), ["train"]) == 1
    assert len(list((place / "tmp").glob("finetune-crash-*/crash-rank0.log"))) == 1
    assert not list(Path("empty").iterdir()) and [path.name for path in Path("strange").iterdir()] == ["file"]


def test_what_is_exported_names_no_user_no_host_and_no_path(place, monkeypatch):
    monkeypatch.setenv("USER", "canaryuser")
    monkeypatch.setenv("LOGNAME", "canaryuser")
    real = socket.gethostname()
    monkeypatch.setattr("socket.gethostname", lambda: "canaryhost")
    task = text_task(Path().resolve())
    assert Path(task.model).is_absolute()
    done = run(replaced(task, data=task.data), output_dir=str(place / "work" / "out"), length="2 steps")
    for path in sorted((done.folder / "model").rglob("*")):
        data = path.read_bytes()
        for what in ("canaryuser", "canaryhost", str(place), str(Path.cwd()), "/home/", *([real] * (len(real) > 4))):
            assert what.encode() not in data, (path, what)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://me:pw@host/x and a@b", "see https://***@host/x and a@b"),
        ("https:/me:pw@host/x", "https:/***@host/x"),
        ("'ssh://git@host:22/x'", "'ssh://***@host:22/x'"),
        ("https://host/x?a=1&access_token=s3cr3t&b=2", "https://host/x?a=1&access_token=***&b=2"),
        ("https://host/x?X-Amz-Signature=abc#y", "https://host/x?X-Amz-Signature=***#y"),
        ("hf_" + "a" * 34 + "!", "***!"),
        ("ASIA" + "A" * 16 + " glpat-" + "a" * 20, "*** ***"),
        ("https://me:p/w@host/x", "https://***@host/x"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("https://host/x?a=1;pwd=s3cr3t#access_token=s3cr3t", "https://host/x?a=1;pwd=***#access_token=***"),
        ("{'Authorization': 'Bearer s3cr3t'}", "{'Authorization': 'Bearer ***'}"),
        ("Proxy-Authorization: Basic bWU6cHc=", "Proxy-Authorization: Basic ***"),
        ('hub_token=s3cr3t! {"api_key": "s3cr3t"}', 'hub_token=*** {"api_key": "***"}'),
        ("the tokenizer's password: a, basic classification", "the tokenizer's password: a, basic classification"),
        ("google-bert/bert-base-uncased@main at https://host/a@b", "google-bert/bert-base-uncased@main at https://host/a@b"),
        ("task.data.train: 3 tokens=5, c:/x", "task.data.train: 3 tokens=5, c:/x"),
    ],
)  # fmt: skip
def test_what_is_hidden_and_what_is_not(text, expected):
    assert redacted(text) == expected
    assert list(secrets_in({"a": [{"b": text}]})) == (["a[0].b"] if text != expected else [])


def test_a_setting_that_only_sounds_secret_is_no_secret(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("SOME_TOKEN_FILE", __file__)
    assert redacted(f"false {__file__}") == f"false {__file__}"
    monkeypatch.setenv("LONG_TOKEN", "x" * 5000)
    assert redacted(json.dumps("x" * 5000)) == '"***"'


@pytest.mark.parametrize("spelt", [str, quote, lambda text: quote(text, safe=""), json.dumps, repr])
@pytest.mark.parametrize("name", ["A_TOKEN", "DB_PASSWD", "SSH_PASSPHRASE", "AZURE_STORAGE_KEY", "MY_CREDENTIALS"])
def test_a_secret_is_known_however_it_is_spelt(spelt, name, monkeypatch):
    secret = "it's/a+long\\\"secret\\n"
    monkeypatch.setenv(name, secret)
    assert redacted(f"see {spelt(secret)}!") in ("see ***!", "see '***'!", 'see "***"!')
