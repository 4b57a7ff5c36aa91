"""The commit in environment.json, in folders whose git configuration a stranger wrote."""

from __future__ import annotations

import os
import subprocess

import pytest

from finetune.environment import environment

EVIL = "#!/bin/sh\ntouch {marker}\ncat\n"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name, value in (("GIT_CONFIG_GLOBAL", os.devnull), ("GIT_CONFIG_SYSTEM", os.devnull)):
        monkeypatch.setenv(name, value)
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git("init", "--quiet")
    (folder / "file").write_text("a")
    git("add", "file")
    git("-c", "user.name=me", "-c", "user.email=me@example.invalid", "commit", "--quiet", "--message", "first")
    script = tmp_path / "evil.sh"
    script.write_text(EVIL.format(marker=tmp_path / "ran"))
    script.chmod(0o755)
    return folder


def git(*words):
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()


def found():
    return environment(seed=0, num_ranks=1, precision="fp32")["git"]


def aged(repository):
    """As if it might have changed: git then looks at what is in it."""
    os.utime(repository / "file", (1, 1))


def test_the_commit_and_whether_files_differ(repository):
    commit = git("rev-parse", "HEAD")
    aged(repository)
    assert found() == commit and len(commit) == 40
    (repository / "file").write_text("b")
    assert found() == f"{commit}-dirty"


def test_outside_git_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert found() is None


def watched(repository, script):
    git("config", "core.fsmonitor", str(script))


def hooked(repository, script):
    (repository / ".git" / "hooks").mkdir(exist_ok=True)
    (repository / ".git" / "hooks" / "post-index-change").symlink_to(script)


def filtered(repository, script):
    git("config", "filter.evil.clean", str(script))
    (repository / ".gitattributes").write_text("* filter=evil\n")


def included(repository, script):
    (repository / "more").write_text(f'[filter "evil"]\n\tprocess = {script}\n')
    git("config", "include.path", "../more")
    (repository / ".gitattributes").write_text("* filter=evil\n")


def fetched(repository, script):
    """An object is missing, and a remote is named that would give it."""
    git("config", "extensions.partialClone", "origin")
    git("config", "remote.origin.promisor", "true")
    git("config", "remote.origin.url", str(repository))
    git("config", "remote.origin.uploadpack", str(script))
    tree = git("rev-parse", "HEAD^{tree}")
    (repository / ".git" / "objects" / tree[:2] / tree[2:]).unlink()


@pytest.mark.parametrize("plants", [watched, hooked, filtered, included, fetched])
def test_nothing_runs_that_a_repository_names(plants, repository, tmp_path):
    commit = git("rev-parse", "HEAD")
    plants(repository, tmp_path / "evil.sh")
    aged(repository)
    said = found()
    assert not (tmp_path / "ran").exists()
    assert said == (commit if plants in (watched, hooked) else f"{commit}-unchecked")
