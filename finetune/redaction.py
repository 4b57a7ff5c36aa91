"""Secrets in text: what is written or printed has none."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "***"
TOKENS = re.compile(
    r"hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|AKIA[0-9A-Z]{16}|sk-[A-Za-z0-9_-]{30,}"
)
_USER_OF_URL = re.compile(r"(:/{1,2})[^\s/'\"]*@")  # one slash where the address went through a path
_OF_QUERY = re.compile(
    r"(?<=[?&])((?:[\w-]*(?:token|secret|password|signature|credential)|(?:api|access)[_-]?key|sig|auth)=)[^&\s'\"#]+",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|API_KEY|ACCESS_KEY", re.IGNORECASE)
_LEAST = 12  # characters; a shorter value of such a name is a setting, or stands in any text


def redacted(text: str) -> str:
    """The text without access tokens, passwords in addresses, and what the environment holds under such names."""
    text = _OF_QUERY.sub(rf"\1{HIDDEN}", _USER_OF_URL.sub(rf"\1{HIDDEN}@", TOKENS.sub(HIDDEN, text)))
    for secret in sorted(environment_secrets(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def secrets_in(tree: Any, path: str = "") -> Iterator[str]:
    """The dotted paths of texts that hold a secret, in mappings and lists."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from secrets_in(value, f"{path}.{redacted(str(key))}".lstrip("."))
    elif isinstance(tree, (list, tuple)):
        for position, value in enumerate(tree):
            yield from secrets_in(value, f"{path}[{position}]")
    elif isinstance(tree, str) and redacted(tree) != tree:
        yield path


def environment_secrets() -> tuple[str, ...]:
    """The values of environment variables whose names say that they are secret."""
    values = (value for name, value in os.environ.items() if _SECRET_NAME.search(name))
    return tuple(value for value in values if len(value) >= _LEAST and not os.path.exists(value))
