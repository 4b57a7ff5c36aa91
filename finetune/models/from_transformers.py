"""Classifiers from transformers: what was missing in the checkpoint is known, nothing is printed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..choices import listed
from ..errors import ModelError
from ..layers import layer_groups, trunk_path
from .contained import shards
from .labels import Labels
from .loaded import LoadedModel
from .resizing import check_patches, resize_images
from .sources import Source, adapter_error, explained

if TYPE_CHECKING:
    from torch import nn

_PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "regression": "regression",
    "multi_label": "multi_label_classification",
    "tagging": None,  # transformers asks for none
    "answers": None,
}


def text(source: Source, labels: Labels, *, scratch: bool, allow_partial: bool, revision: str | None) -> LoadedModel:
    """A text classifier and its tokenizer."""
    with quiet(), explained(source):
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        config = _config(source, revision)
        module, new, dropped = _model(
            source, config, labels, AutoModelForSequenceClassification, scratch=scratch, revision=revision
        )
        tokenizer = AutoTokenizer.from_pretrained(source.place, revision=revision, trust_remote_code=False)
    _check_trunk(source, module, new, allow_partial=allow_partial)
    return LoadedModel(module, new, "transformers", tokenizer, source.text, dropped)


def tagger(source: Source, labels: Labels, *, scratch: bool, allow_partial: bool, revision: str | None) -> LoadedModel:
    """A classifier of tokens, and a tokenizer for words that are split already."""
    from ..data.word_tokens import spaced

    with quiet(), explained(source):
        from transformers import AutoModelForTokenClassification, AutoTokenizer

        config = _config(source, revision)
        module, new, dropped = _model(
            source, config, labels, AutoModelForTokenClassification, scratch=scratch, revision=revision
        )
        tokenizer = AutoTokenizer.from_pretrained(source.place, revision=revision, trust_remote_code=False)
    _check_trunk(source, module, new, allow_partial=allow_partial)
    return LoadedModel(module, new, "transformers", spaced(tokenizer, model=source.text), source.text, dropped)


def question_answerer(source: Source, *, scratch: bool, allow_partial: bool, revision: str | None) -> LoadedModel:
    """A model that gives every token the logits of start and end, and its tokenizer."""
    labels = Labels(("start", "end"), "answers")
    with quiet(), explained(source):
        from transformers import AutoModelForQuestionAnswering, AutoTokenizer

        config = _config(source, revision)
        auto = AutoModelForQuestionAnswering
        module, new, dropped = _model(source, config, labels, auto, scratch=scratch, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(source.place, revision=revision, trust_remote_code=False)
    _check_trunk(source, module, new, allow_partial=allow_partial)
    return LoadedModel(module, new, "transformers", tokenizer, source.text, dropped)


def image(
    source: Source, labels: Labels, *, scratch: bool, image_size: int | None, allow_partial: bool, revision: str | None
) -> LoadedModel:
    """An image classifier and its image processor."""
    with quiet(), explained(source):
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        config = _config(source, revision)
        _check_image_config(source, config, AutoModelForImageClassification)
        auto = AutoModelForImageClassification
        module, new, dropped = _model(source, config, labels, auto, scratch=scratch, revision=revision)
        processor = AutoImageProcessor.from_pretrained(source.place, revision=revision, trust_remote_code=False)
    _check_trunk(source, module, new, allow_partial=allow_partial)
    if image_size is not None:
        check_patches(module, image_size, source=source.text)
        module = resize_images(module, processor, image_size, source=source.text)
    return LoadedModel(module, new, "transformers", processor, source.text, dropped)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from printing its load report and bars: what it says is in ``LoadedModel.new``."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _config(source: Source, revision: str | None) -> Any:
    from transformers import AutoConfig
    from transformers.utils import find_adapter_config_file

    if not source.is_folder and find_adapter_config_file(source.place, revision=revision) is not None:
        raise adapter_error(source)  # else its weights are read with the model's, from a pickle too
    config = AutoConfig.from_pretrained(source.place, revision=revision, trust_remote_code=False)
    if config._attn_implementation not in (None, "eager", "sdpa"):
        config._attn_implementation = None  # a name such as user/kernel would be code from the Hub
    return config


def check_hub_weights(source: Source, config: Any, *, revision: str | None) -> None:
    """See that the weights on the Hub are safetensors: an index may name pickles all the same.

    Raises:
        ModelError: They are not.
    """
    from transformers.utils import cached_file

    def found(name: str) -> str | None:
        options = {"revision": revision, "_raise_exceptions_for_missing_entries": False}
        return cached_file(source.place, name, **options)

    names = []
    if (given := getattr(config, "transformers_weights", None)) is not None:
        names = [str(given)]
    elif found("model.safetensors") is None and (index := found("model.safetensors.index.json")) is not None:
        names = shards(Path(index), text=source.text)
    if wrong := [name for name in names if not name.endswith(".safetensors")]:
        raise ModelError(
            f"model {source.text!r} names weights that are no safetensors: {listed(wrong, most=2)}. They are not "
            "opened. Get the model as safetensors, from a place that you trust."
        )


def _check_image_config(source: Source, config: Any, auto: Any) -> None:
    if config.model_type == "timm_wrapper":
        raise ModelError(f"model {source.text!r} is a timm checkpoint: write timm:{source.place}.")
    if type(config) not in auto._model_mapping:
        raise ModelError(
            f"model {source.text!r} ({config.model_type}) has no image classifier in transformers. "
            "Where timm has it (timm:vit_small_patch16_dinov3.lvd1689m for DINOv3), use that."
        )


def _model(
    source: Source, config: Any, labels: Labels, auto: Any, *, scratch: bool, revision: str | None
) -> tuple[nn.Module, tuple[str, ...], dict[str, str]]:
    """The model in fp32 with the labels' head, what is new in it, and of that what was not taken, and why."""
    import torch

    kept, why = _same_head(config, labels), labels.other_than(config.num_labels)
    config.architectures = config.architectures or []  # from_config iterates over it
    config.id2label = labels.id2label  # sets num_labels
    config.label2id = {name: index for index, name in enumerate(labels.names)}
    config.problem_type = _PROBLEM_TYPES[labels.problem]
    if scratch:
        module = auto.from_config(config, dtype=torch.float32, trust_remote_code=False)
        return module, layer_groups(module)[-1].parameters, {}
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
    mismatched = {name for name, *_ in report["mismatched_keys"]}
    missing, sized = {*report["missing_keys"], *mismatched}, set[str]()
    if not kept:
        sized = _of_answers(module) if labels.problem == "answers" else _label_sized(module)
        _initialize(module, sized - missing)
    new = tuple(name for name, _ in module.named_parameters() if name in missing | sized)
    dropped = {name: why if name in sized else "another shape in the checkpoint" for name in new}
    return module, new, {name: dropped[name] for name in new if name in mismatched or name not in missing}


def _same_head(config: Any, labels: Labels) -> bool:
    """Whether the checkpoint's head answers the question that the data asks."""
    is_tagger = any(name.endswith("ForTokenClassification") for name in config.architectures or ())
    if is_tagger or labels.problem == "tagging":
        return is_tagger and labels.problem == "tagging" and dict(config.id2label) == labels.id2label
    is_of_answers = any(name.endswith("ForQuestionAnswering") for name in config.architectures or ())
    if is_of_answers or labels.problem == "answers":
        return is_of_answers and labels.problem == "answers" and config.num_labels == 2
    if labels.problem == "regression":
        return config.problem_type == "regression" or len(labels.names) == config.num_labels == 1
    is_same_kind = config.problem_type == _PROBLEM_TYPES[labels.problem]
    if labels.problem == "classification":
        is_same_kind = is_same_kind or config.problem_type is None
    return is_same_kind and dict(config.id2label) == labels.id2label


def _of_answers(module: nn.Module) -> set[str]:
    """Names of the weights that give a token its two logits."""
    return {name for name, _ in module.named_parameters() if name.startswith(("qa_outputs.", "classifier."))}


def _label_sized(module: Any) -> set[str]:
    """Names of the weights whose shape depends on the number of labels: seen on a model with one label more."""
    import copy

    import torch

    from ..randomness import preserved

    config = copy.deepcopy(module.config)
    config.num_labels = config.num_labels + 1
    with preserved(), torch.device("meta"):
        other = dict(type(module)(config).named_parameters())
    return {name for name, weight in module.named_parameters() if weight.shape != other[name].shape}


def _initialize(module: nn.Module, names: Collection[str]) -> None:
    """Draw weights anew: N(0, initializer_range), biases 0 (Devlin et al. 2019; transformers' own rule)."""
    import torch

    spread = getattr(module.config, "initializer_range", 0.02)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if name in names:
                weight.zero_() if weight.ndim < 2 else weight.normal_(0.0, spread)


def _check_trunk(source: Source, module: nn.Module, new: Collection[str], *, allow_partial: bool) -> None:
    if allow_partial:
        return
    lost = [name for name in new if name.startswith(f"{trunk_path(module)}.")]
    if lost:
        raise ModelError(
            f"model {source.text!r}: the checkpoint lacks {len(lost)} weights of the trunk, or has them in another "
            f"shape: {listed(lost, most=3)}. It is not a checkpoint of this architecture, or it is cut off; if it is "
            "meant, load it with allow_partial, and they start from random values."
        )
