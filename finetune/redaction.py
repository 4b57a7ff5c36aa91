"""Secrets in text: what is written or printed has none."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

HIDDEN = "***"
TOKENS = re.compile(
    r"hf_(?:jwt_|oauth_)?[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}"
    r"|glpat-[\w-]{20,}|A[KS]IA[0-9A-Z]{16}|sk-[A-Za-z0-9_-]{30,}|xox[abeoprs]-[\w-]{20,}|AIza[\w-]{35}"
    r"|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"
)
# One slash where the address went through a path. A password may hold a slash, but what begins as a port is none.
_USER_OF_URL = re.compile(r"(:/{1,2})(?:[^\s/'\"]*|[^\s/:@'\"]+:(?!\d*/)[^\s@'\"]*)@")
_OF_QUERY = re.compile(
    r"(?<=[?&#;])((?:[\w-]*(?:token|secret|password|signature|credential)|(?:api|access)[_-]?key|sig|auth|jwt|passwd|pwd)=)"
    r"[^&;\s'\"#]+",
    re.IGNORECASE,
)
_OF_HEADER = re.compile(r"(authorization['\"]?\s*[:=]\s*['\"]?(?:(?:basic|bearer)\s+)?)[^\s'\",]+", re.IGNORECASE)
_OF_SETTING = re.compile(  # as in password=..., or {"api_key": "..."}
    r"((?:password|passwd|passphrase|(?:api|access|secret|private)[_-]?key|(?:access|auth|hf|hub|api|client)[_-]"
    r"(?:token|secret))['\"]?\s*[:=]\s*['\"]?)[^\s'\",;&{}\[\]()]{6,}",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|(?:API|ACCESS|PRIVATE|ACCOUNT|STORAGE|ENCRYPTION)_?KEY", re.IGNORECASE
)
_LEAST = 12  # characters; a shorter value of such a name is a setting, or stands in any text


def redacted(text: str) -> str:
    """The text without access tokens, passwords in addresses, and what the environment holds under such names."""
    text = TOKENS.sub(HIDDEN, text)
    text = _USER_OF_URL.sub(rf"\1{HIDDEN}@", text)
    for pattern in (_OF_QUERY, _OF_HEADER, _OF_SETTING):
        text = pattern.sub(rf"\1{HIDDEN}", text)
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
    """The values of environment variables whose names say that they are secret, and how else a text may spell them.

    In an address, in JSON, and as Python shows a text.
    """
    values = [value for name, value in os.environ.items() if _SECRET_NAME.search(name)]
    values = [value for value in values if len(value) >= _LEAST and not os.path.exists(value)]
    spelt = [
        (value, quote(value), quote(value, safe=""), json.dumps(value)[1:-1], repr(value)[1:-1]) for value in values
    ]
    return tuple(dict.fromkeys(form for forms in spelt for form in forms))
