"""How a verb ends: one message on stderr from the first process, and an exit code that says why."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence

from ..crash_logs import keep
from ..errors import FinetuneError, InterruptedRunError, StorageError
from ..redaction import redacted
from .streams import OutputLostError

UNEXPECTED = 1
USAGE = 2
_HEAD_START = 2.0  # seconds


def ended(run: Callable[[], object], words: Sequence[str]) -> int:
    """The exit code of ``run``; whatever it raises becomes one message (with ``--debug`` the traceback first)."""
    import typer

    debug = "--debug" in words
    try:
        with _plain_warnings(debug=debug):
            code = run()
        if code == InterruptedRunError.exit_code:  # of Ctrl-C, which typer keeps to itself
            raise KeyboardInterrupt
        sys.stdout.flush()
        return code if isinstance(code, int) and not isinstance(code, bool) else 0
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0 if error.code is None else UNEXPECTED
    except FinetuneError as error:
        _say(str(error), debug=debug, may_be_own=error.is_own and not error.is_told)
        return error.exit_code
    except typer.Exit as error:
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        _say("interrupted; go on with --resume" if words[:1] == ["train"] else "interrupted", debug=debug)
        return InterruptedRunError.exit_code
    except OutputLostError as lost:
        if lost.is_closed:
            return 0
        _say(str(lost), debug=debug)
        return StorageError.exit_code
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of click, which typer may bring along under another name
            _say(f"{error.format_message().rstrip('.')}. See: finetune {_verb(words)}--help", debug=debug)
            return USAGE
        _say(_crashed(error, words), debug=debug, may_be_own=True)
        return UNEXPECTED


def rank() -> int:
    """This process among those of the launch; 0 without a launcher."""
    with contextlib.suppress(ValueError):
        return int(os.environ.get("RANK", "0"))
    return 0


@contextlib.contextmanager
def _plain_warnings(*, debug: bool) -> Iterator[None]:
    """Warnings as one line each from the first process; what libraries deprecate is not the user's business."""
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.showwarning = _shown_once()  # type: ignore[assignment]
        yield


def _shown_once() -> Callable[..., None]:
    """Prints each text once. Python's own memory of them is lost when any library changes a filter."""
    told: set[str] = set()

    def show(message: Warning | str, *_: object) -> None:
        text = printable(redacted(str(message)))
        if rank() == 0 and text not in told:
            told.add(text)
            print(f"warning: {text}", file=sys.stderr, flush=True)

    return show


def _say(message: str, *, debug: bool, may_be_own: bool = False) -> None:
    """Rank 0 speaks for all; another rank only where it may be the only one that knows."""
    if rank() != 0:
        if os.environ.get("WORLD_SIZE", "1") == "1":
            return
        # The launcher ends all processes when the first one ends, and what all of them found, the first one says.
        # One that is still there then has a fault of its own.
        time.sleep(_HEAD_START)
        if not may_be_own:
            return
        message = f"process {rank()}: {message}"
    if debug:
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
    with contextlib.suppress(OutputLostError):
        sys.stdout.flush()
    print(f"error: {printable(redacted(message))}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """The text with letters that a terminal obeys as escapes: names of files, and what is in them, are quoted."""
    escapes = {letter: letter.encode("unicode_escape").decode() for letter in set(text) if not letter.isprintable()}
    return "".join(letter if letter == "\n" else escapes.get(letter, letter) for letter in text)


def _verb(words: Sequence[str]) -> str:
    return f"{words[0]} " if words and not words[0].startswith("-") else ""


def _crashed(error: Exception, words: Sequence[str]) -> str:
    """Keeps the traceback in ``crash-rank<N>.log``, and says where."""
    text = f"finetune {' '.join(words)}\n\n{''.join(traceback.format_exception(error))}"
    what = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    path = keep(error, text, f"crash-rank{rank()}.log")
    if path is None:
        return f"unexpected {what}. Repeat with --debug for the traceback."
    return f"unexpected {what}. This is a fault in finetune or a library; the traceback is in {path}."
