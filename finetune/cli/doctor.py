"""``finetune doctor``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from .options import AsJson, Debug


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Print versions, devices, precision, Hub and disk, and what would go wrong in a launch.")(doctor)


def doctor(
    config_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--config_file", metavar="FILE", help="An accelerate configuration to look at as well."),
    ] = None,
    as_json: AsJson = False,  # noqa: FBT002
    debug: Debug = False,  # noqa: FBT002
) -> None:
    """Prints the findings."""
    import json

    found = findings(config_file)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    _print(found)


def findings(config_file: Path | None) -> dict[str, Any]:
    """Everything that the verb prints, as JSON can hold it."""
    from ..environment import versions
    from .launch_traps import traps

    devices = _devices()
    return {
        "versions": versions(),
        "devices": devices,
        "hub": _hub(),
        "disk": _disk(),
        "traps": [*_outdated(), *traps(config_file, device=devices[0]["name"], precision=devices[0]["precision"])],
    }


def _devices() -> list[dict[str, Any]]:
    import torch

    from ..environment import cores
    from ..precision import why_not_native

    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    other = torch.accelerator.current_accelerator(check_available=True)
    found = []
    for device in devices or [other or torch.device("cpu")]:
        facts: dict[str, Any] = {"name": str(device)}
        if device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            facts |= {"model": properties.name, "memory": properties.total_memory}
        if device.type == "cpu":
            facts |= {"model": f"{cores()} cores", "threads": torch.get_num_threads()}
        reasons = {name: why_not_native(name, device) for name in ("bf16", "fp16")}
        found.append(facts | {"precision": {"fp32": "yes"} | {name: why or "yes" for name, why in reasons.items()}})
    return found


def _hub() -> dict[str, Any]:
    import os

    from ..hub.upload import endpoint
    from ..models.offline import hub_is_offline
    from ..redaction import redacted

    asked = os.environ.get("HF_HUB_OFFLINE", "")
    offline = hub_is_offline()
    reason = "HF_HUB_OFFLINE is set" if asked not in ("", "0") else "no connection within a second"
    return {"endpoint": redacted(endpoint()), "state": f"offline ({reason})" if offline else "reachable"}


def _disk() -> dict[str, int]:
    import shutil

    usage = shutil.disk_usage(".")
    return {"free": usage.free, "total": usage.total}


def _outdated() -> list[str]:
    """Packages older than this version of finetune is tested with."""
    from importlib import metadata

    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in metadata.requires("finetune-toolkit") or ()]
    except metadata.PackageNotFoundError:
        return ["finetune-toolkit is not installed as a package, so versions cannot be checked: pip install -e ."]
    found = []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found.append(f"{requirement.name} is not installed; run: pip install '{requirement}'")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name} {version} is too old; run: pip install '{requirement}'")
    return found


def _print(found: Mapping[str, Any]) -> None:
    from ..wording import size
    from .tables import print_table

    print_table(("package", "version"), list(found["versions"].items()))
    rows = []
    for device in found["devices"]:
        memory = f", {size(device['memory'])}" if "memory" in device else ""
        threads = f", {device['threads']} threads" if "threads" in device else ""
        rows.append((device["name"], f"{device.get('model', '')}{memory}{threads}"))
        rows += [(f"  {name}", said) for name, said in device["precision"].items()]
    rows.append(("Hub", f"{found['hub']['endpoint']}: {found['hub']['state']}"))
    rows.append(("disk here", f"{size(found['disk']['free'])} free of {size(found['disk']['total'])}"))
    print_table(("what", "found"), rows)
    for trap in found["traps"]:
        print(f"trap: {trap}")
    if not found["traps"]:
        print("no launch traps found")
