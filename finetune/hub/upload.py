"""One commit to the Hub, tried again where the Hub is busy, and never made twice."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PublishError
from ..redaction import redacted

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds between attempts; huggingface_hub retries most calls within each
_AGAIN = frozenset({408, 409, 412, 429, 500, 502, 503, 504})


class Visibility(StrEnum):
    """Who sees the repository."""

    PUBLIC = "public"
    PRIVATE = "private"


def endpoint() -> str:
    """Where the Hub is: ``HF_ENDPOINT``, or the public one."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def upload(
    folder: Path, repo: str, *, visibility: Visibility = Visibility.PUBLIC, waits: Sequence[float] = WAITS
) -> str:
    """Create ``repo`` if need be and commit every file of ``folder``; unchanged files make no commit.

    Args:
        folder: What to upload, whole.
        repo: ``user/name``.
        visibility: Of a new repository.
        waits: Seconds before each further attempt.

    Returns:
        The commit that holds the files, 40 hexadecimal digits.

    Raises:
        PublishError: The Hub refused, or could not be reached.
    """
    from huggingface_hub import HfApi, constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise PublishError("HF_HUB_OFFLINE is set, so nothing can be published. Unset it.")
    if not get_token():  # from the environment or `hf auth login`, never from a config
        raise PublishError("No access token for the Hub. Run `hf auth login`, or set HF_TOKEN.")
    api = HfApi(endpoint=endpoint())
    for wait in (*waits, None):
        try:
            return _send(api, folder, repo, visibility)
        except PublishError:
            raise
        except Exception as fault:  # the library's own network errors share no public base class
            status = _status(fault)
            if wait is None or status not in _AGAIN:
                raise PublishError(redacted(f"The Hub at {endpoint()} {_reason(status, fault, repo)}")) from fault
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _send(api: HfApi, folder: Path, repo: str, visibility: Visibility) -> str:
    """Create the repository if need be, and commit; returns the commit."""
    api.create_repo(repo, private=visibility is Visibility.PRIVATE, exist_ok=True)
    info = api.model_info(repo)
    if visibility is Visibility.PRIVATE and info.private is False:
        raise PublishError(
            f"{repo} exists and is public, and --private was asked. "
            "Make it private in its settings, or use another name."
        )
    # With the parent named, a commit whose answer was lost is refused the second time (412) and not made twice.
    done = api.upload_folder(
        repo_id=repo, folder_path=folder, commit_message="Publish a finetune run", parent_commit=info.sha
    )
    return done.oid


def _status(fault: BaseException) -> int:
    """The HTTP status behind an error; 503 where the Hub was not reached, 0 for anything else."""
    from huggingface_hub.errors import HfHubHTTPError

    cause: Any = fault
    while cause is not None:
        if isinstance(cause, HfHubHTTPError):
            return cause.response.status_code
        if isinstance(cause, ConnectionError | TimeoutError) or type(cause).__module__.split(".")[0].startswith(
            "http"
        ):
            return 503
        cause = cause.__cause__ or cause.__context__
    return 0


def _reason(status: int, fault: Exception, repo: str) -> str:
    first_line = next(iter(str(fault).strip().splitlines()), type(fault).__name__)
    if status in (401, 403):
        return f"refused the token: it needs write access to {repo} (`hf auth whoami` tells whose it is)."
    if status in _AGAIN:
        return f"could not be reached, or was busy ({first_line})."
    return f"refused ({first_line})."
