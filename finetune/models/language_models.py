"""Masked language models from transformers: a checkpoint's own head, or a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..layers import layer_groups
from .from_transformers import _check_trunk, _config, check_hub_weights, quiet
from .loaded import LoadedModel
from .sources import Source, explained

if TYPE_CHECKING:
    from torch import nn


def masked_language(source: Source, *, scratch: bool, allow_partial: bool, revision: str | None) -> LoadedModel:
    """An encoder with a head over its vocabulary, and its tokenizer."""
    with quiet(), explained(source):
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        config = _config(source, revision)
        if type(config) not in AutoModelForMaskedLM._model_mapping:
            raise ModelError(
                f"model {source.text!r} ({config.model_type}) is no masked language model in transformers. "
                "Name an encoder that is one, such as google-bert/bert-base-uncased."
            )
        module, new = _model(source, config, AutoModelForMaskedLM, scratch=scratch, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(source.place, revision=revision, trust_remote_code=False)
    _check_trunk(source, module, new, allow_partial=allow_partial)
    return LoadedModel(module, new, "transformers", tokenizer, source.text)


def _model(
    source: Source, config: Any, auto: Any, *, scratch: bool, revision: str | None
) -> tuple[nn.Module, tuple[str, ...]]:
    """The model in fp32, and the names of what is new in it; weights tied to others are never new."""
    import torch

    config.architectures = config.architectures or []  # from_config iterates over it
    if scratch:
        module = auto.from_config(config, dtype=torch.float32, trust_remote_code=False)
        return module, layer_groups(module)[-1].parameters
    if not source.is_folder:
        check_hub_weights(source, config, revision=revision)
    module, report = auto.from_pretrained(
        source.place,
        config=config,
        revision=revision,
        dtype=torch.float32,  # the default is the checkpoint's
        use_safetensors=True,  # the default falls back to pickles
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    missing = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    return module, tuple(name for name, _ in module.named_parameters() if name in missing)
