"""A model folder, looked at before a library opens it: weights as safetensors only, and all of them inside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..choices import listed
from ..errors import ModelError

ADAPTER = "adapter_model.safetensors"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pth.tar", "*.pkl", "*.ckpt")
_TEMPLATES = "additional_chat_templates"  # the one folder inside it that transformers reads
_MOST_BYTES = 16 * 2**20  # of a JSON file that is no vocabulary; the largest indices have 100 kB
_MOST_LABELS = 1_000_000  # transformers makes up a name for each


def missing_weights(folder: Path, *, library: str) -> str:
    """``""`` where a library finds safetensors before anything else; else what is missing, and what lies there."""
    if (folder / _WEIGHTS).is_file() or (library == "transformers" and (folder / _INDEX).is_file()):
        return ""
    return _WEIGHTS + _hint(folder)


def check_weights(folder: Path, *, text: str) -> None:
    """See that the weights are no pickle under another name, and lie in the folder.

    Args:
        folder: Of a model, which has weights.
        text: The folder as the user wrote it.

    Raises:
        ModelError: They do not; says what to do.
    """
    names = [_WEIGHTS]
    if not (folder / _WEIGHTS).is_file():
        names = shards(folder / _INDEX, text=text)
    given = _json(folder / "config.json").get("transformers_weights")
    for name in [*names, *([given] if given is not None else [])]:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(
                f"model folder {text!r} names weights that are no safetensors file in it: {str(name)[:80]!r}. "
                "Save the model anew with save_pretrained."
            )
        if not (folder / name).is_file():
            raise ModelError(f"model folder {text!r} lacks {name}, which {_INDEX} names. Copy it there.")
        _refuse_pickle(folder / name, text)


def check_links(folder: Path, *, text: str) -> None:
    """See that no file is a link out of the folder, or out of the Hub cache that holds it, nor a pipe without an end.

    Raises:
        ModelError: One is.
    """
    root = folder.resolve()
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        root = root.parent.parent  # the Hub cache, where each file is a link into blobs/ beside it
    for path in sorted([*folder.iterdir(), *(folder / _TEMPLATES).glob("*")]):
        if path.is_symlink():
            is_read = not path.is_dir() or path.name == _TEMPLATES
            if is_read and not path.resolve().is_relative_to(root):
                raise ModelError(f"model folder {text!r}: {path.name} is a link out of it. Put the file itself there.")
        elif not path.is_file() and not path.is_dir():
            raise ModelError(f"model folder {text!r}: {path.name} is no file. Put the file itself there.")


def check_config(folder: Path, *, text: str) -> None:
    """See that a configuration asks for no more than a model has, before a library does what it says.

    Raises:
        ModelError: It does.
    """
    count = _json(folder / "config.json").get("num_labels")
    if isinstance(count, int | float) and count > _MOST_LABELS:
        raise ModelError(f"model folder {text!r}: config.json has num_labels: {count}, at most {_MOST_LABELS:,}.")


def check_adapter(folder: Path) -> None:
    """See that an adapter is safetensors in its folder and no more: PEFT would open a pickle in their place.

    Raises:
        ModelError: It is not; or of a type that reads other files, or brings code.
    """
    if not (folder / ADAPTER).is_file():
        raise ModelError(
            f"adapter folder {str(folder)!r} lacks {ADAPTER}{_hint(folder)}. Save the adapter with save_pretrained."
        )
    check_links(folder, text=str(folder))
    _refuse_pickle(folder / ADAPTER, str(folder))
    settings = _json(folder / "adapter_config.json")
    kind = str(settings.get("peft_type"))
    if kind not in _adapters_in_layers() or settings.get("megatron_config") is not None:
        raise ModelError(
            f"adapter folder {str(folder)!r}: the type of adapter_config.json (peft_type: "
            f"{kind[:40]!r}) is not read here, as it may name files elsewhere, or code. "
            "Take an adapter that is put into layers, such as LORA."
        )


def _adapters_in_layers() -> set[str]:
    """PEFT's types, but for those that begin with prompts, and the one that is made of other adapters."""
    from peft import PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kinds = PEFT_TYPE_TO_CONFIG_MAPPING.items()
    return {str(name.value) for name, kind in kinds if not issubclass(kind, PromptLearningConfig)} - {"XLORA"}


def saved_model(folder: Path) -> str:
    """A folder with a saved model as a task names it: ``timm:<folder>`` where timm saved it.

    What cannot be read is told by whoever loads it.
    """
    return f"timm:{folder}" if "architecture" in _json(folder / "config.json") else str(folder)


def is_pickle(path: Path) -> bool:
    """Whether a file begins as a pickle or an archive of torch does, and not as safetensors (a length, then JSON)."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] != b"{" and (head[:2] == b"PK" or (head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5"))


def _refuse_pickle(path: Path, text: str) -> None:
    if is_pickle(path):
        raise ModelError(
            f"model folder {text!r}: {path.name} is a pickle under another name, which can run code when it is "
            "opened. It is not opened. Get the model as safetensors, from a place that you trust."
        )


def _hint(folder: Path) -> str:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if not pickles:
        return ""
    return (
        f" (it has {listed(pickles, most=2)}, a pickle, which can run code when it is opened; if you trust who made "
        f"it: finetune convert {folder / pickles[0]} --i-trust-this-file)"
    )


def shards(index: Path, *, text: str) -> list[str]:
    """The files that an index names, whatever they are.

    Raises:
        ModelError: It names none.
    """
    found = _json(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise ModelError(f"model folder {text!r}: {_INDEX} names no weights. Save the model with save_pretrained.")
    return sorted({name if isinstance(name, str) else repr(name) for name in found.values()})


def _json(path: Path) -> dict[str, Any]:
    """A JSON mapping; empty for what is none, which its library then tells.

    Raises:
        ModelError: It is too large to be looked at, and the library would still read it.
    """
    if not path.is_file():  # a pipe would block for ever
        return {}
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ModelError(f"{path} is larger than {_MOST_BYTES:,} bytes, which no configuration is.")
        found = json.loads(content)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
