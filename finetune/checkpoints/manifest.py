"""MANIFEST.json: what a checkpoint consists of, with a checksum for each file and one for itself.

The checksums are xxh3-128: they find rot and torn writes at 7.7 GB/s (sha256: 0.28). They are no seal
against tampering, and need not be: nothing that is read is ever executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import xxhash

from .._version import VERSION
from .documents import from_json
from .files import is_safe_name

MANIFEST = "MANIFEST.json"
FORMAT_VERSION = 1
TENSORS = ".safetensors"
DOCUMENT = ".json"


class DamagedError(Exception):
    """A checkpoint that cannot be used: which file, and why. Never reaches a user as it is."""

    def __init__(self, file: str, reason: str):
        super().__init__(f"{file}: {reason}")


class FileRecord(NamedTuple):
    """One file of a checkpoint: its bytes, and their xxh3-128 in hex."""

    size: int
    checksum: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint folder holds, and where in which run it was made."""

    step: int
    run_id: str
    parent_step: int | None
    files: Mapping[str, FileRecord] = field(default_factory=dict)

    def rendered(self) -> bytes:
        """The bytes of MANIFEST.json; the checksum of all the rest is its last entry."""
        body: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "made_by": f"finetune {VERSION}",
            "run_id": self.run_id,
            "step": self.step,
            "parent_step": self.parent_step,
            "files": {
                name: {"size": record.size, "xxh3_128": record.checksum} for name, record in sorted(self.files.items())
            },
        }
        return _text({**body, "checksum": checksum(_text(body))})

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read a manifest; every byte of it is checked.

        Raises:
            DamagedError: Not a manifest, or not as it was written.
        """
        try:
            document = from_json(data)
        except ValueError as fault:
            raise DamagedError(MANIFEST, f"not readable ({fault})") from fault
        body = dict(document)
        told = body.pop("checksum", None)
        if told != checksum(_text(body)) or data != _text(document):
            raise DamagedError(MANIFEST, "its own checksum does not match")
        version = body.get("format_version")
        if version != FORMAT_VERSION:
            theirs = f"made by {body.get('made_by')} in format {version}"
            raise DamagedError(MANIFEST, f"{theirs}; this is finetune {VERSION}, which reads format {FORMAT_VERSION}")
        return cls._from_body(body)

    @classmethod
    def _from_body(cls, body: Mapping[str, Any]) -> Manifest:
        try:
            files = {
                name: FileRecord(int(entry["size"]), str(entry["xxh3_128"])) for name, entry in body["files"].items()
            }
            found = cls(step=body["step"], run_id=body["run_id"], parent_step=body["parent_step"], files=files)
        except (KeyError, TypeError, AttributeError, ValueError) as fault:
            raise DamagedError(MANIFEST, f"an entry is missing or of the wrong kind ({fault})") from fault
        if not isinstance(found.step, int) or found.step < 0 or not isinstance(found.run_id, str):
            raise DamagedError(MANIFEST, "step or run_id is of the wrong kind")
        for name in files:
            if not is_safe_name(name) or not name.endswith((TENSORS, DOCUMENT)) or name == MANIFEST:
                raise DamagedError(MANIFEST, f"lists {name!r}, which no checkpoint of ours holds")
        return found


def checksum(data: bytes | memoryview) -> str:
    """The xxh3-128 of ``data``, in hex."""
    return xxhash.xxh3_128_hexdigest(data)


def _text(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1) + "\n").encode()
