"""Classifiers from timm, read strictly and from safetensors only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..choices import nearest
from ..errors import ModelError
from ..layers import classifier_parameters, layer_groups
from .labels import Labels
from .loaded import LoadedModel
from .resizing import check_patches
from .sources import Source, explained

if TYPE_CHECKING:
    from torch import nn


def image(
    source: Source, labels: Labels, *, scratch: bool, image_size: int | None, revision: str | None
) -> LoadedModel:
    """An image classifier and the dict of its data config.

    The model is first built with the checkpoint's own head, so that timm compares every name and shape; with
    another number of classes it would load without looking. Then the head is exchanged if the labels differ.
    """
    _check_name(source)
    with explained(source):
        module: Any = _model(source, scratch=scratch, image_size=image_size, revision=revision)
        if image_size is not None:
            check_patches(module, image_size, source=source.text)
        kept = not scratch and _label_names(module) == labels.names
        why = labels.other_than(module.num_classes) if module.num_classes and not scratch else ""
        if not kept:
            module.reset_classifier(len(labels.names))
    module = module.float()
    new = layer_groups(module)[-1].parameters if scratch else () if kept else classifier_parameters(module)
    dropped = dict.fromkeys(new, why) if why else {}
    return LoadedModel(module, new, "timm", _data_config(module, image_size), source.text, dropped)


def _check_name(source: Source) -> None:
    import timm

    architecture = source.place.split(".")[0]
    if source.is_folder or source.is_hub_id or timm.is_model(architecture):
        return
    hint = nearest(architecture, timm.list_models())
    raise ModelError(f"model {source.text!r}: timm {timm.__version__} has no model {architecture!r}{hint}.")


def _check_no_pickle(source: Source) -> None:
    """Refuse the few models of timm whose weights are on no Hub, but somewhere else, as a pickle."""
    from timm.models import get_pretrained_cfg

    cfg: Any = get_pretrained_cfg(source.place)
    if cfg is not None and cfg.has_weights and not cfg.hf_hub_id:
        raise ModelError(
            f"model {source.text!r}: timm has its weights only as a pickle ({cfg.url}), which is not opened. Take "
            "another model; or, if you trust who made the file, download it, and run finetune convert on it."
        )


def _model(source: Source, *, scratch: bool, image_size: int | None, revision: str | None) -> nn.Module:
    import timm

    name = source.place
    options: dict[str, Any] = {}
    if source.is_folder:
        name = f"local-dir:{source.place}"
    elif source.is_hub_id:
        name = f"hf-hub:{source.place}" + (f"@{revision}" if revision else "")
    if image_size is not None and _has_fixed_size(name):
        options["img_size"] = image_size
    if scratch:
        return timm.create_model(name, pretrained=False, **options)
    if not source.is_folder:
        if not source.is_hub_id:
            _check_no_pickle(source)
        # without this timm falls back to pickles where a repository has no safetensors
        options["pretrained_cfg_overlay"] = {"hf_hub_filename": "model.safetensors"}
    return timm.create_model(name, pretrained=True, **options)  # the default is random weights, silently


def _has_fixed_size(name: str) -> bool:
    """Whether the architecture takes ``img_size``: vision transformers do, convolutional networks do not."""
    from timm.models import _hub, get_pretrained_cfg

    scheme, _, rest = name.partition(":")
    if scheme == "local-dir":
        cfg = _hub.load_model_config_from_path(rest)[0]
    elif scheme == "hf-hub":
        cfg = _hub.load_model_config_from_hf(rest)[0]
    else:
        cfg = get_pretrained_cfg(name).to_dict()
    return bool(cfg.get("fixed_input_size"))


def _label_names(module: Any) -> tuple[str, ...] | None:
    """The checkpoint's labels, where it says them."""
    names: Any = module.pretrained_cfg.get("label_names")
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=int)]
    return tuple(names) if names and len(names) == module.num_classes else None


def _data_config(module: nn.Module, image_size: int | None) -> dict[str, Any]:
    from timm.data import resolve_model_data_config

    config = dict(resolve_model_data_config(module))
    if image_size is not None:
        config["input_size"] = (config["input_size"][0], image_size, image_size)
    return config
