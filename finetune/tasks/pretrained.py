"""What a checkpoint says of itself before its weights are read: tokenizer, image processor, limits, classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ModelError
from ..start_up import rarely_collected

if TYPE_CHECKING:
    import numpy as np

    from ..data.pixels import Pixels
    from ..data.truncation import Truncation
    from ..models.sources import Source

# Families whose first token has position pad_token_id + 1, as in fairseq: the table has rows that no token uses.
_SHIFTED_POSITIONS = {"camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta"} | {
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}


def source_of(model: str) -> str:
    """Where a model is read from: the two that come with us have names, all others are as the user wrote them."""
    if model == "minilm":
        from ..models.minilm import minilm_folder

        return str(minilm_folder())
    if model == "glyph_vit":
        from ..models.glyph_vit import glyph_vit_folder

        return str(glyph_vit_folder())
    return model


def public_name_of(model: str) -> str:
    """What a model card calls the starting point: the Hub id of what comes with us, else as the user wrote it."""
    if model == "minilm":
        from ..models.minilm import BASE_MODEL

        return BASE_MODEL
    return model


@rarely_collected()
def config_of(source: str) -> Any:
    """The configuration of a model of transformers.

    Raises:
        ModelError: There is none, or it cannot be reached.
    """
    from transformers import AutoConfig

    return _read(AutoConfig, source)


@rarely_collected()
def tokenizer_of(source: str) -> Any:
    """The tokenizer of a model of transformers.

    Raises:
        ModelError: There is none, or it cannot be reached.
    """
    from transformers import AutoTokenizer

    tokenizer = _read(AutoTokenizer, source)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes up where there is no file
        raise ModelError(
            f"task.model: {source} has no tokenizer (tokenizer.json), only special tokens. "
            "Save the tokenizer into the same folder with save_pretrained."
        )
    return tokenizer


def position_limit(config: Any) -> int | None:
    """The longest text that a model takes, in tokens; None where positions are relative and nothing bounds it."""
    limit = getattr(config, "max_position_embeddings", None)
    if not limit or limit < 0 or not getattr(config, "position_biased_input", True):
        return None
    if config.model_type in _SHIFTED_POSITIONS:
        return limit - (config.pad_token_id or 0) - 1
    return limit


def check_max_length(max_length: int, *, config: Any, model: str) -> None:
    """Refuse texts that are longer than the model's table of positions.

    Raises:
        ConfigError: Names both.
    """
    limit = position_limit(config)
    if limit is not None and max_length > limit:
        raise ConfigError(
            f"task.max_length: {max_length} tokens, and {model} has positions for {limit}. "
            f"Set task.max_length={limit} or less; longer texts are cut."
        )


def check_truncation(truncation: Truncation, *, max_length: int, tokenizer: Any, num_texts: int) -> None:
    """Refuse a length that leaves nothing to the text, and a head that leaves nothing to the tail.

    Raises:
        ConfigError: Names both lengths.
    """
    head = getattr(truncation, "head", 0)
    special = tokenizer.num_special_tokens_to_add(pair=num_texts == 2)
    room = max_length - special
    if room < 1:
        raise ConfigError(
            f"task.max_length: {max_length} tokens, of which {special} are special, leave none for a text."
        )
    if head and head >= room:
        raise ConfigError(
            f"task.truncation.head: {head} tokens, and task.max_length: {max_length} leaves room for {room} "
            "beside special tokens, so nothing of the tail would stay. Set a longer task.max_length, a smaller head, "
            "or task.truncation: head."
        )


def check_vocabulary(ids: np.ndarray, *, config: Any, model: str) -> None:
    """Refuse a tokenizer that knows tokens for which the model has no embedding.

    Raises:
        ModelError: Names both numbers.
    """
    known = getattr(config, "vocab_size", None)
    if known is not None and len(ids) and ids.max() >= known:
        raise ModelError(
            f"task.model: the tokenizer of {model} gives token {ids.max()}, and the model embeds {known} tokens. "
            "Tokenizer and weights are not of one model; save them from the same one."
        )


def text_labels_of(source: str) -> tuple[str, ...]:
    """The classes that the head of a checkpoint was trained on, in its order; empty where they have no names."""
    names = tuple(name for _, name in sorted((config_of(source).id2label or {}).items()))
    return () if all(name == f"LABEL_{number}" for number, name in enumerate(names)) else names


def image_labels_of(source: str) -> tuple[str, ...]:
    """As ``text_labels_of``; a folder of timm names them if it was saved with names."""
    from ..models.sources import resolve

    place = resolve(source)
    if place.library != "timm":
        return text_labels_of(source)
    names = _timm_saved(place).get("label_names") or ()
    return tuple(names[key] for key in sorted(names, key=int)) if isinstance(names, dict) else tuple(names)


@rarely_collected()
def pixels_of(source: str, *, image_size: int | None) -> Pixels:
    """How a model of transformers or timm wants its images.

    Args:
        source: A Hub id, a folder, or ``timm:`` before a name, a Hub id or a folder.
        image_size: Side of the square that the model is given, in pixels; None: as its own configuration says.

    Raises:
        ModelError: Nothing says how to prepare images for it.
    """
    from ..data.pixels import pixels_of_processor, pixels_of_timm
    from ..models.sources import resolve

    place = resolve(source)
    if place.library == "timm":
        return pixels_of_timm(_timm_config(place, image_size), source=source)
    from transformers import AutoImageProcessor

    from ..models.resizing import set_size

    processor = _read(AutoImageProcessor, source)
    if image_size is not None:
        set_size(processor, image_size)
    return pixels_of_processor(processor, source=source)


def _timm_config(place: Source, image_size: int | None) -> dict[str, Any]:
    """As ``timm.data.resolve_model_data_config`` finds it on the model itself."""
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg

    known = _timm_saved(place).get("pretrained_cfg")
    if known is None:
        registered = get_pretrained_cfg(place.place)
        if registered is None:
            raise ModelError(f"task.model: {place.text} is neither a model of timm nor a folder that timm saved.")
        known = registered.to_dict()
    config = resolve_data_config({}, pretrained_cfg=known)
    size = tuple(config["input_size"]) if image_size is None else (3, image_size, image_size)
    return {**config, "input_size": size}


def _timm_saved(place: Source) -> dict[str, Any]:
    """What timm saved as ``config.json``; empty for the models that timm knows by name."""
    from ..models.contained import check_links
    from ..models.sources import check_hub, explained

    if place.is_folder:
        check_links(Path(place.place), text=place.text)
        with explained(place):
            return json.loads((Path(place.place) / "config.json").read_text(encoding="utf-8"))
    if not place.is_hub_id:
        return {}
    from huggingface_hub import hf_hub_download

    check_hub(place, revision=None)
    with explained(place):
        return json.loads(Path(hf_hub_download(place.place, "config.json")).read_text(encoding="utf-8"))


def _read(kind: Any, source: str) -> Any:
    from ..models.from_transformers import quiet
    from ..models.sources import check_hub, check_image_source, check_text_source, explained, resolve

    place = resolve(source)
    if kind.__name__ == "AutoImageProcessor":
        check_image_source(place)
    else:
        check_text_source(place, reads_tokenizer=kind.__name__ == "AutoTokenizer")
    if not place.is_folder:
        check_hub(place, revision=None)
    with quiet(), explained(place):
        return kind.from_pretrained(place.place, trust_remote_code=False)
