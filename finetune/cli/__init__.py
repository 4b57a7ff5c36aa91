"""The command line: ``finetune VERB``, and the same thing under a launcher from a recipe file."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..orphans import die_with_parent
from .reporting import ended
from .streams import guard_streams

if TYPE_CHECKING:
    import typer

    from ..run_config import RunConfig

_LAUNCHED = ("LOCAL_RANK", "ACCELERATE_MIXED_PRECISION")  # variables that launchers set


def main(*recipes: Callable[[], RunConfig], argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit; with recipe functions: ``finetune train`` on the file that holds them.

    Args:
        recipes: The functions of a recipe file, which ends in ``main(full, freeze, ...)``; the first is its default.
        argv: The words after the program's name; None: those of the process.
    """
    guard_streams()
    if any(name in os.environ for name in _LAUNCHED):
        die_with_parent(signal.SIGTERM)  # accelerate launch leaves its process behind when it is stopped itself
    words = list(sys.argv[1:] if argv is None else argv)
    if recipes:
        words = ["train", os.path.abspath(recipes[0].__code__.co_filename), *words]
    sys.exit(ended(lambda: app()(words, standalone_mode=False, prog_name="finetune"), words))


def app() -> typer.Typer:
    """All verbs; what a verb needs is imported when it runs, so that ``--help`` answers at once."""
    import typer

    from . import (
        compare,
        convert,
        cp,
        demo,
        doctor,
        evaluate,
        lr_find,
        plan,
        publish,
        recipes,
        recommend,
        show,
        train,
        tune,
    )

    found = typer.Typer(
        name="finetune",
        help="Fine-tune BERT- and ViT-class encoders. What is configured is what runs, and `plan` shows it first.",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @found.callback()
    def _root() -> None:
        pass

    verbs = (demo, recipes, show, cp, plan, train, evaluate, lr_find, compare, recommend, tune, publish, convert)
    for verb in (*verbs, doctor):
        verb.register(found)
    return found
