"""``finetune convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from .options import Debug


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Write a PyTorch pickle of weights (.bin, .pt, .pth, .ckpt) as safetensors, beside it.")(convert)


def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="For example pytorch_model.bin.")],
    i_trust_this_file: Annotated[  # noqa: FBT002
        bool, typer.Option("--i-trust-this-file", help="You know who made it: a pickle can be made to run code.")
    ] = False,
    debug: Debug = False,  # noqa: FBT002
) -> None:
    """Converts it."""
    from ..hub.conversion import convert as converted

    if not i_trust_this_file:
        raise ConfigError(
            f"{file}: a pickle can be made to run code when it is opened. Tensors alone are read, in a process of its "
            "own; if you know who made the file, repeat with --i-trust-this-file. Safer: get the model as safetensors."
        )
    print(f"written: {converted(file)}")
