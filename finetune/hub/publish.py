"""From a run folder to the Hub: check, then one commit."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from ..checkpoints.run_folder import runs_inside
from ..errors import ConfigError, PublishError, RunFolderError
from ..model_cards.card import PLACEHOLDER
from ..model_cards.probe import PROBE
from ..redaction import redacted
from .contents import Contents, check_private, contents
from .reload_check import check_reload
from .upload import WAITS, Visibility, endpoint, upload

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]{0,95}")


class Delivery(StrEnum):
    """What :func:`publish` does."""

    UPLOAD = "upload"
    DRY_RUN = "dry run"  # every check, and no network


class Publication(NamedTuple):
    """What was published, or would be."""

    url: str
    commit: str  # empty after a dry run
    files: tuple[str, ...]
    left_out: tuple[str, ...]
    card: Path


def publish(
    run: Path,
    repo: str,
    *,
    visibility: Visibility = Visibility.PUBLIC,
    delivery: Delivery = Delivery.UPLOAD,
    waits: Sequence[float] = WAITS,
) -> Publication:
    """Publish ``run/model`` as ``repo``; publishing the same content twice makes one commit.

    Args:
        run: A finished run folder.
        repo: ``user/name`` on the Hub.
        visibility: Of a new repository. One that is public is not made private, but refused.
        delivery: Upload, or only check and list.
        waits: Seconds before each further attempt, where the Hub is busy or cannot be reached.

    Raises:
        ConfigError: ``repo`` is not ``user/name``.
        RunFolderError: No run folder with a model.
        PublishError: A check failed, or the Hub refused; the run is untouched.
    """
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise ConfigError(
            f"{repo!r} is no repository of the Hub. Write user/name, of letters, digits, '-', '_' and '.'."
        )
    model = run / "model"
    if not model.is_dir():
        raise RunFolderError(f"{run} has no model/ folder. Give the folder of a finished run{runs_inside(run)}.")
    found = contents(model)
    if "README.md" not in found.files:
        raise PublishError(f"{model} has no README.md (the model card). Finish the run with --resume, then publish.")
    with _staged(run, found, repo=repo) as folder:
        check_private(folder, found.files, run=run, owner=repo.partition("/")[0])
        check_reload(folder, run / PROBE)
        if delivery is Delivery.DRY_RUN:
            return Publication(f"{redacted(endpoint())}/{repo}", "", found.files, found.left_out, model / "README.md")
        try:
            commit = upload(folder, repo, visibility=visibility, waits=waits)
        except PublishError as fault:
            again = f"The run is untouched; try again with: finetune publish {run} {repo}"
            raise PublishError(f"{fault} {again}") from fault.__cause__
    return Publication(f"{redacted(endpoint())}/{repo}", commit, found.files, found.left_out, model / "README.md")


@contextmanager
def _staged(run: Path, found: Contents, *, repo: str) -> Iterator[Path]:
    """A folder with exactly what is published, its card naming the repository."""
    folder = Path(tempfile.mkdtemp(prefix=".publish-", dir=run))
    try:
        for name in found.files:
            try:
                os.link(run / "model" / name, folder / name)
            except OSError:  # no hard links here
                shutil.copyfile(run / "model" / name, folder / name)
        card = (folder / "README.md").read_bytes()
        (folder / "README.md").unlink()  # the link, so that the run's own card stays as it is
        (folder / "README.md").write_bytes(card.replace(PLACEHOLDER.encode(), repo.encode()))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
