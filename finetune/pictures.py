"""How every picture looks and is written: without a window, and equal bytes for equal content."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .choices import listed
from .errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARK = "#c8452f"
"""The colour of the one thing that a picture is about."""

_FORMATS = ("png", "svg", "pdf")
_UNDATED: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.4",
    "xtick.color": "0.3",
    "ytick.color": "0.3",
    "legend.frameon": False,
    "svg.hashsalt": "finetune",  # else its ids are drawn by chance
}


@contextmanager
def styled() -> Iterator[None]:
    """What is drawn and written inside has our style; matplotlib's settings are put back."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure, in inches; no window, whatever the machine has."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write(figure: Figure, file: Any, *, kind: str) -> None:
    """Write a figure into a path or an open file, as ``png``, ``svg`` or ``pdf``."""
    figure.savefig(file, format=kind, dpi=150, metadata=_UNDATED.get(kind, {}))


def check_plot_file(path: Path) -> None:
    """Refuse, before anything is loaded, a file that cannot be drawn.

    Raises:
        ConfigError: Its ending is none that we draw, or its folder does not exist.
    """
    if path.suffix.removeprefix(".") not in _FORMATS:
        raise ConfigError(f"--plot {path}: end the name in one of {listed(f'.{name}' for name in _FORMATS)}.")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot {path}: the folder {path.parent} does not exist. Make it, or give another.")


def write_plot(figure: Figure, path: Path) -> None:
    """Write what ``--plot`` asked for.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        write(figure, path, kind=path.suffix.removeprefix("."))
    except OSError as error:
        said = error.strerror or error
        raise ConfigError(f"--plot {path}: {said}. Give a file that can be written.") from error
