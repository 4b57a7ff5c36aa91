"""Where a model comes from: what the user wrote, resolved and looked at before a library opens it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from ..choices import listed
from ..errors import ModelError
from .contained import check_config, check_links, check_weights, missing_weights
from .offline import hub_is_offline

_REFUSED = r"(?![^@]*(--|\.\.|\.git(@|$)|[.-](/|@|$)))"  # of the other rules that the Hub's own library has
_HUB_ID = re.compile(_REFUSED + r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?(@[\w./-]+)?")
_PROCESSOR_FILES = {
    "tokenizer": ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "*.model"),
    "image processor": ("preprocessor_config.json", "processor_config.json"),
}


class Source(NamedTuple):
    """A model's place."""

    text: str  # as the user wrote it
    library: str  # "transformers" or "timm"
    place: str  # a folder, a Hub id, or timm's name
    is_folder: bool

    @property
    def is_hub_id(self) -> bool:
        """Whether it names a Hub repository itself; timm's plain names lead to one all the same."""
        return not self.is_folder and (self.library == "transformers" or "/" in self.place)


def resolve(text: str) -> Source:
    """Read ``user/name``, a folder, ``timm:name``, ``timm:user/name`` or ``timm:folder``.

    Raises:
        ModelError: It is neither a folder that exists nor a possible Hub id.
    """
    library = "timm" if text.startswith("timm:") else "transformers"
    place = text.removeprefix("timm:")
    folder = Path(os.path.expanduser(place))  # unlike Path's own, these raise for no name
    if place and os.path.isdir(folder):
        return Source(text, library, str(folder), is_folder=True)
    if os.path.isfile(folder):
        raise ModelError(f"model {text!r} is a file. Give the folder that holds it: {str(folder.parent)!r}.")
    if not _HUB_ID.fullmatch(place):
        raise ModelError(
            f"model {text!r}: there is no such folder, and it is no Hub id either. Give a folder with config.json and "
            "model.safetensors, a Hub id such as google-bert/bert-base-uncased, or timm:<name>."
        )
    return Source(text, library, place, is_folder=False)


def check_source(
    text: str,
    *,
    processor: Literal["tokenizer", "image processor"],
    scratch: bool = False,
    revision: str | None = None,
) -> Source:
    """Resolve a model and see, within about a second and without torch, that it can be loaded.

    Args:
        text: Hub id, folder, or timm's forms of them.
        processor: What is loaded with it.
        scratch: Only its config is needed.
        revision: Branch, tag or commit on the Hub.

    Raises:
        ModelError: It does not exist, its folder lacks files, or the Hub cannot be reached and the cache lacks it.
    """
    source = resolve(text)
    if processor == "tokenizer":
        check_text_source(source, reads_tokenizer=False)  # what a folder lacks is named below, all at once
    elif source.is_folder:
        _check_place(source)
    if source.is_folder and not scratch:
        check_folder(source, processor=processor)
    if not source.is_folder and not (scratch and source.library == "timm" and not source.is_hub_id):
        check_hub(source, revision=revision)
    return source


def check_folder(source: Source, *, processor: str) -> None:
    """See that a folder holds what loading needs: config, safetensors, and a tokenizer or image processor.

    Raises:
        ModelError: Something is missing; the message names all of it.
    """
    folder = Path(source.place)

    def has(*patterns: str) -> bool:
        return any(next(folder.glob(pattern), None) for pattern in patterns)

    missing = [] if has("config.json") else ["config.json"]
    if weights := missing_weights(folder, library=source.library):
        missing.append(weights)
    if source.library == "transformers" and not _has_processor(folder, processor):
        missing.append(f"{_PROCESSOR_FILES[processor][0]} (the {processor})")
    if missing:
        there = listed(sorted(path.name for path in folder.iterdir()), most=6) or "nothing"
        raise ModelError(
            f"model folder {source.text!r} lacks {' and '.join(missing)}; it holds {there}. Save the model there with "
            f"save_pretrained (timm: save_for_hf with safe_serialization=True), and its {processor} too."
        )
    check_weights(folder, text=source.text)


def check_text_source(source: Source, *, reads_tokenizer: bool) -> None:
    """See that a place can hold a model of texts, before its configuration or tokenizer is read.

    Raises:
        ModelError: It is timm's, an adapter, or a folder without a tokenizer.
    """
    if source.library == "timm":
        raise ModelError(f"model {source.text!r}: timm has image models only. For texts give a Hub id or a folder.")
    if not source.is_folder:
        return
    _check_place(source)
    folder = Path(source.place)
    if reads_tokenizer and not _has_processor(folder, "tokenizer"):
        is_of_images = _has_processor(folder, "image processor")
        what = "it is a model of images" if is_of_images else "save it there with save_pretrained"
        raise ModelError(f"model folder {source.text!r} has no tokenizer (tokenizer.json); {what}.")


def check_image_source(source: Source) -> None:
    """See that a place can hold an image model of transformers, before its image processor is read.

    Raises:
        ModelError: It is an adapter, or a folder without an image processor.
    """
    if not source.is_folder:
        return
    _check_place(source)
    folder = Path(source.place)
    if not _has_processor(folder, "image processor"):
        is_of_texts = _has_processor(folder, "tokenizer")
        otherwise = f"save it there with save_pretrained, or write timm:{source.text} if timm saved the model"
        raise ModelError(
            f"model folder {source.text!r} has no image processor (preprocessor_config.json); "
            f"{'it is a model of texts' if is_of_texts else otherwise}."
        )


def _has_processor(folder: Path, processor: str) -> bool:
    return any(next(folder.glob(name), None) for name in _PROCESSOR_FILES[processor])


def _check_place(source: Source) -> None:
    """Refuse a folder that is an adapter, or has one: transformers would go for that, and for the base it names."""
    folder = Path(source.place)
    if (folder / "adapter_config.json").is_file():
        raise adapter_error(source)
    if not (folder / "config.json").is_file() and (folder / "model").is_dir():
        raise ModelError(f"model {source.text!r} is a run folder. Give its model: {str(folder / 'model')!r}.")
    check_links(folder, text=source.text)
    check_config(folder, text=source.text)


def adapter_error(source: Source) -> ModelError:
    """What to say of a place with an adapter."""
    return ModelError(
        f"model {source.text!r} is a {'folder' if source.is_folder else 'repository'} with an adapter, not a model. "
        "Give its base model, or merge the adapter into it and save that."
    )


def check_hub(source: Source, *, revision: str | None) -> None:
    """Where the Hub cannot be reached, see that the model is in the local cache; neither torch nor timm is imported.

    Raises:
        ModelError: It is not.
    """
    if not hub_is_offline():
        return
    from huggingface_hub import constants, try_to_load_from_cache

    if source.is_hub_id:
        name, _, tag = source.place.partition("@")
        found = isinstance(try_to_load_from_cache(name, "config.json", revision=revision or tag or None), str)
    else:
        found = any(Path(constants.HF_HUB_CACHE).glob(f"models--timm--{source.place}*"))
    if not found:
        raise ModelError(_offline_message(source))


@contextmanager
def explained(source: Source) -> Iterator[None]:
    """Turn what a library raises while it reads ``source`` into one message that says what to do."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        if not source.is_folder and hub_is_offline():
            raise ModelError(_offline_message(source)) from error
        raise ModelError(f"model {source.text!r} cannot be loaded: {_first_line(error)}") from error


def _offline_message(source: Source) -> str:
    name = source.place if source.is_hub_id else f"timm/{source.place}" + (".<tag>" if "." not in source.place else "")
    prefix = "timm:" if source.library == "timm" else ""
    return (
        f"model {source.text!r} is not in the local cache, and the Hub cannot be reached (or HF_HUB_OFFLINE is set). "
        f"Give a local folder instead ({prefix}path/to/folder); or, on a machine with a network, run `hf download "
        f"{name} --local-dir FOLDER` (formerly huggingface-cli download) and copy the folder, or copy its cache "
        "(HF_HOME, by default ~/.cache/huggingface)."
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[0] if lines else 'no reason given'} ({type(error).__name__})"
