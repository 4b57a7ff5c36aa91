"""What of a model folder may leave the machine: names on an allow list, with nothing private inside."""

from __future__ import annotations

import getpass
import json
import re
import socket
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from ..errors import PublishError
from ..redaction import TOKENS, environment_secrets

ALLOWED = (
    "README.md",
    "LICENSE",
    "config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "labels.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "preprocessor_config.json",
    "processor_config.json",
)
_VOCABULARIES = ("tokenizer.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt")
_LABEL_KEYS = ("id2label", "label2id", "label_names", "label_descriptions")  # a label may look like a path: /m/0dgw9r
_ABSOLUTE = re.compile(r"(?:/[^/\n]+){2,}/?|[A-Za-z]:[\\/].*|~[\\/].*|file:.*")
_HEADER_LIMIT = 100_000_000  # bytes; the safetensors library's own


class Contents(NamedTuple):
    """The files of a model folder, by name."""

    files: tuple[str, ...]
    left_out: tuple[str, ...]  # not on the allow list; stays here


def contents(folder: Path) -> Contents:
    """What would be published of ``folder``.

    Raises:
        PublishError: No model in it, or a link where a file belongs.
    """
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [entry for entry in entries if any(fnmatchcase(entry.name, pattern) for pattern in ALLOWED)]
    for file in files:
        if file.is_symlink() or not file.is_file():
            raise PublishError(f"{file.name} in {folder} is not a plain file. Put the file itself there.")
    names = tuple(file.name for file in files)
    if not any(name.endswith(".safetensors") for name in names):
        raise PublishError(
            f"{folder} holds no model.safetensors and no adapter_model.safetensors. Nothing to publish."
        )
    return Contents(names, tuple(entry.name for entry in entries if entry.name not in names))


def check_private(folder: Path, files: tuple[str, ...], *, run: Path, owner: str = "") -> None:
    """Refuse tokens, absolute paths, and the names of this user and machine.

    Args:
        folder: With the files.
        files: Their names.
        run: The run folder that they come from.
        owner: Of the repository; a user who is called the same on this machine and on the Hub has made that public.

    Raises:
        PublishError: Everything that was found, by file, without its value; or a file that cannot be read.
    """
    secrets, places = environment_secrets(), _places(run, owner)
    found = []
    for name in files:
        text = _readable(folder / name)
        if TOKENS.search(text) or any(secret in text for secret in secrets):
            found.append(f"{name}: an access token or another secret")
        if name not in _VOCABULARIES:
            found += [f"{name}: {what}" for what in _private_names(text, places)]
        if name.endswith(".json") and name not in _VOCABULARIES:
            found += [f"{name}: an absolute path in {key}" for key in _keys_of_paths(name, text)]
    if found:
        raise PublishError(
            "This would publish what is private:\n  " + "\n  ".join(dict.fromkeys(found)) + "\n"
            f"Edit these files in {run / 'model'} (a base model is named by its Hub id), then publish again."
        )


def _readable(file: Path) -> str:
    """The text of a file; of safetensors the header, where names and metadata are."""
    if file.suffix != ".safetensors":
        return file.read_bytes().decode("utf-8", errors="replace")
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > _HEADER_LIMIT:
            raise PublishError(f"{file.name} is not a safetensors file.")
        return stream.read(length).decode("utf-8", errors="replace")


def _places(run: Path, owner: str) -> dict[str, str]:
    """Patterns of what names this machine, and what they are."""
    paths = {str(Path.home()), str(run.resolve()), str(Path.cwd()), tempfile.gettempdir()} - {"/"}
    places = {r"(?<![\w.-])" + re.escape(path) + r"(?=[/\\])": "a path of this machine" for path in paths}
    for name, what in ((socket.gethostname(), "the name of this machine"), (_user(), "the name of this user")):
        if len(name) >= 5 and name not in ("localhost", owner):
            ordinary = name.isalpha()  # may be a word of the card: count it in addresses and paths only
            places[(r"(?<=[/\\@])" if ordinary else r"\b") + re.escape(name) + r"\b"] = what
    return places


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return ""


def _private_names(text: str, places: dict[str, str]) -> list[str]:
    return [what for pattern, what in places.items() if re.search(pattern, text)]


def _keys_of_paths(name: str, text: str) -> list[str]:
    try:
        return list(_absolute_paths(json.loads(text)))
    except (ValueError, RecursionError):
        raise PublishError(f"{name} is not JSON that can be read. Finish the run again, then publish.") from None


def _absolute_paths(value: object, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in _LABEL_KEYS:
                yield from _absolute_paths(inner, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _absolute_paths(inner, key)
    elif isinstance(value, str) and _ABSOLUTE.fullmatch(value):
        yield key
