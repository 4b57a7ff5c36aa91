"""What an accelerate launch would silently do otherwise than it says here (measured with accelerate 1.15)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..config.yaml_reader import read_file
from ..errors import ConfigError


def traps(config_file: Path | None, *, device: str, precision: Mapping[str, str]) -> list[str]:
    """One sentence for each trap: the environment's, then those of the given and of the default configuration.

    Args:
        config_file: An accelerate configuration.
        device: The first device, ``cpu`` where there is no other.
        precision: ``yes`` or why not, by format.
    """
    found = list(_of_environment(os.environ))
    for path in (config_file, _default_file()):
        if path is None or (path != config_file and not path.is_file()):
            continue
        found += [f"{path}: {trap}" for trap in _of_file(path, device=device, precision=precision)]
    return found


def _default_file() -> Path:
    """Where ``accelerate config`` writes; a launch without ``--config_file`` reads it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "huggingface"
    return Path(home) / "accelerate" / "default_config.yaml"


def _of_environment(environment: Mapping[str, str]) -> Iterator[str]:
    if environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS") not in (None, "", "1"):
        yield "ACCELERATE_GRADIENT_ACCUMULATION_STEPS is set and is refused here: batch_size says it. Unset it."
    if environment.get("WORLD_SIZE", "1") != "1" and "RANK" not in environment:
        yield "WORLD_SIZE is set without RANK and is refused here: nobody starts the other processes. Unset it."
    if environment.get("TRANSFORMERS_OFFLINE") and not environment.get("HF_HUB_OFFLINE"):
        yield "TRANSFORMERS_OFFLINE is set but HF_HUB_OFFLINE, which all Hub libraries read, is not. Set that one."
    if environment.get("CUDA_VISIBLE_DEVICES") == "":
        yield "CUDA_VISIBLE_DEVICES is empty, so no GPU is seen. Unset it, or name devices."


def _of_file(path: Path, *, device: str, precision: Mapping[str, str]) -> Iterator[str]:
    try:
        tree = read_file(path).tree
    except ConfigError as error:
        yield f"cannot be read ({error})"
        return
    yield from _of_types(tree)
    wanted = str(tree.get("mixed_precision"))
    if precision.get(wanted, "yes") != "yes":
        yield f"mixed_precision {wanted}: {precision[wanted]}. Use 'no'."
    yield from _of_processes(tree, has_gpu=device != "cpu")


def _of_processes(tree: Mapping[str, Any], *, has_gpu: bool) -> Iterator[str]:
    kind, processes = tree.get("distributed_type"), tree.get("num_processes", 1)
    if kind == "MULTI_CPU" and processes != 1:
        yield f"MULTI_CPU starts one process, not {processes}. Use accelerate_configs/ddp_cpu.yaml."
    if kind == "NO" and processes not in (1, None):
        yield f"distributed_type NO starts one process, not {processes}. Use accelerate_configs/ddp.yaml."
    if not has_gpu and kind == "FSDP":
        yield "FSDP needs GPUs; without them it is ignored. Use accelerate_configs/ddp_cpu.yaml."
    if not has_gpu and kind in ("NO", None) and not tree.get("use_cpu"):
        yield "without use_cpu: true the launcher sets OMP_NUM_THREADS=1. Use accelerate_configs/cpu.yaml."
    if has_gpu and tree.get("use_cpu") and kind == "MULTI_GPU":
        yield "use_cpu does not reach the script of a MULTI_GPU launch. Set ACCELERATE_USE_CPU=true."
    settings = tree.get("fsdp_config")
    if kind == "FSDP" and isinstance(settings, Mapping) and settings.get("fsdp_version", 1) != 2:
        yield "FSDP1 is refused for strategies with several phases. Convert the file: accelerate to-fsdp2."


def _of_types(tree: Mapping[str, Any]) -> Iterator[str]:
    """YAML 1.1, which accelerate reads, takes some bare words for booleans."""
    for key in ("mixed_precision", "distributed_type"):
        if str(tree.get(key)).lower() == "false":
            yield f"{key} is a boolean; write it in quotes: {key}: 'no'."
