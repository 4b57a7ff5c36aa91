"""The arguments that several verbs share, written once so that they mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's name (bert_text), a recipe file, or a YAML file.")
]
Function = Annotated[
    Optional[str],  # noqa: UP045 - typer reads it at run time
    typer.Option("--recipe", metavar="NAME", help="Which function of the recipe file; the first one by default."),
]
Files = Annotated[
    Optional[list[Path]],  # noqa: UP045
    typer.Option("--config", metavar="FILE", help="YAML laid over the recipe; several are laid one on another."),
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(metavar="[KEY=VALUE]...", help="Values laid over everything, e.g. optimizer.lr=3e-5."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the code of Hub metrics, at the revision that each pins.")
]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Run code in files that the run's config.yaml names; read them first.")
]
