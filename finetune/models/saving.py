"""Writing a model folder that transformers, timm and PEFT open without us."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .loaded import LoadedModel

if TYPE_CHECKING:
    from torch import Tensor, nn

_PLACES = ("_name_or_path", "name_or_path", "base_model_name_or_path")
_OF_THIS_MACHINE = ("is_local", "local_files_only")  # how transformers found a tokenizer here


def save_model(
    folder: str | Path,
    loaded: LoadedModel,
    module: nn.Module,
    *,
    id2label: Mapping[int, str],
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write config, weights or adapter, and tokenizer or image processor; nothing in them names a local path.

    Args:
        folder: Made if it does not exist; files of the same names are replaced.
        loaded: What the module came from.
        module: The model, or PEFT's model around it.
        id2label: The data's labels.
        state_dict: The module's weights by its own names, where they were gathered elsewhere (FSDP).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = dict(module.state_dict() if state_dict is None else state_dict)
    names = {int(index): str(name) for index, name in id2label.items()}
    if hasattr(module, "peft_config"):
        _save_adapter(folder, loaded, module, names, weights)
    elif loaded.library == "timm":
        _save_timm(folder, loaded, module, names, weights)
    else:
        _save_transformers(folder, module, names, weights)
    if loaded.library == "transformers":
        loaded.processor.save_pretrained(folder)
    for path in folder.glob("*config.json"):
        _scrub(path)
        mode = path.stat().st_mode
    for path in folder.glob("*.safetensors"):  # the library makes them for their owner alone
        with contextlib.suppress(OSError):  # not every file system knows modes
            path.chmod(mode)


def base_model_name(loaded: LoadedModel) -> str:
    """The base model as others can find it: its Hub id, or a local folder's last name."""
    place = loaded.source.removeprefix("timm:")
    if os.path.isabs(os.path.expanduser(place)) or place.startswith(".") or os.path.isdir(place):
        return os.path.basename(os.path.normpath(place))
    if loaded.library == "timm" and "/" not in place:
        module: Any = loaded.module
        return str(module.pretrained_cfg.get("hf_hub_id") or place)
    return place


def _save_transformers(folder: Path, module: Any, names: dict[int, str], weights: dict[str, Tensor]) -> None:
    from .from_transformers import quiet

    module.config.id2label = names
    module.config.label2id = {name: index for index, name in names.items()}
    with quiet():
        module.save_pretrained(folder, state_dict=weights)  # its names on disk may differ from those in memory
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = [name.removeprefix("FSDP") for name in config["architectures"]]  # FSDP2's class names
    _write_json(folder / "config.json", config)


def _save_timm(
    folder: Path, loaded: LoadedModel, module: nn.Module, names: dict[int, str], weights: dict[str, Tensor]
) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    _save_timm_config(folder / "config.json", loaded, module, names)


def _save_timm_config(path: Path, loaded: LoadedModel, module: nn.Module, names: dict[int, str]) -> None:
    from timm.models._hub import save_config_for_hf

    labels = [names[index] for index in sorted(names)]
    save_config_for_hf(module, path, model_config={"label_names": labels, "pretrained_cfg": dict(loaded.processor)})
    config = json.loads(path.read_text())
    # transformers passes num_classes a second time, and fails (timm 1.0.31, transformers 5.23); timm needs it once
    config.get("model_args", {}).pop("num_classes", None)
    _write_json(path, config)


def _save_adapter(
    folder: Path, loaded: LoadedModel, module: Any, names: dict[int, str], weights: dict[str, Tensor]
) -> None:
    """PEFT's two files, written here: its own ``save_pretrained`` asks the Hub, and writes a card with a local path.

    There is no ``config.json``: transformers would take the folder for a whole model with an adapter in it. The
    labels are in ``labels.json`` for transformers; for timm the data config is beside them.
    """
    import copy

    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    adapter = get_peft_model_state_dict(module, state_dict=weights, save_embedding_layers=False)
    tensors = {name: tensor.contiguous() for name, tensor in adapter.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config: Any = copy.deepcopy(module.peft_config["default"])
    config.inference_mode = True
    config.base_model_name_or_path = base_model_name(loaded)
    config.save_pretrained(folder)
    path = folder / "adapter_config.json"
    content = json.loads(path.read_text())
    for key in ("target_modules", "modules_to_save", "feedforward_modules"):
        if isinstance(content.get(key), list):  # sets: their order changes from process to process
            content[key] = sorted(set(content[key]))
    _write_json(path, content)
    labels: dict[str, Any] = {"id2label": {str(index): name for index, name in sorted(names.items())}}
    if loaded.library == "timm":
        labels["data_config"] = loaded.processor
    _write_json(folder / "labels.json", labels)


def _scrub(path: Path) -> None:
    """Take absolute paths out of a JSON file: of a name the last part stays, other keys go."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        return
    for key, value in list(content.items()):
        is_path = isinstance(value, str) and os.path.isabs(value)
        if is_path and key in _PLACES:
            content[key] = os.path.basename(os.path.normpath(value))
        elif is_path or key in _OF_THIS_MACHINE:
            del content[key]
    _write_json(path, content)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=list) + "\n")
