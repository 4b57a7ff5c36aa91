"""Real English that is wherever Python is: docstrings of the standard library, each with its manual chapter.

A few examples per topic are the default text task, because there pre-training visibly pays; with thousands
of rows the words alone are enough, and a bag of words does as well.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import sysconfig
import tokenize
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from finetune.errors import DataError
from finetune.randomness import generator

MIN_WORDS = 5
MAX_WORDS = 60

# Chapters of the library reference with enough texts (the least has 189 in Python 3.11, 196 in 3.12, 202 in 3.13),
# fixed so that the labels do not depend on the version. Graphical interfaces would be a fifth of all rows.
CHAPTERS = {
    "numbers": "_pydecimal fractions numbers random statistics",
    "data types": (
        "_collections_abc _pydatetime _weakrefset bisect calendar collections copy datetime enum graphlib heapq pprint"
        " reprlib types weakref zoneinfo"
    ),
    "files": "filecmp fileinput fnmatch genericpath glob linecache ntpath pathlib posixpath shutil stat tempfile",
    "compression": "bz2 gzip lzma tarfile zipfile",
    "operating system": "_pyio argparse ctypes curses getopt getpass logging optparse os platform",
    "concurrency": "concurrent multiprocessing queue sched subprocess threading",
    "networking": "asyncio selectors signal socket ssl",
    "internet data": "base64 email json mailbox mimetypes quopri",
    "markup": "html xml",
    "internet protocols": (
        "ftplib http imaplib ipaddress poplib smtplib socketserver urllib uuid webbrowser wsgiref xmlrpc"
    ),
    "development": "doctest pydoc typing unittest",
    "runtime": "__future__ abc contextlib dataclasses inspect site sysconfig traceback warnings",
    "importing": "importlib modulefinder pkgutil runpy zipimport",
}


class Docstring(NamedTuple):
    """The first paragraph of a docstring, on one line, and where it comes from."""

    text: str
    topic: str
    module: str  # top-level name, for splits by module


@cache
def docstrings() -> tuple[Docstring, ...]:
    """Every text of 5 to 60 words that stands under one topic only, each once, sorted; equal for equal Pythons.

    Sources are parsed and never imported, so nothing of them runs, and ``python -OO`` changes nothing.
    """
    first: dict[str, Docstring] = {}
    ambiguous = set()
    for topic, modules in CHAPTERS.items():
        for module in modules.split():
            for text in _texts(module):
                found = first.setdefault(text, Docstring(text, topic, module))
                if found.topic != topic:
                    ambiguous.add(text)
    return tuple(sorted(row for text, row in first.items() if text not in ambiguous))


def fingerprint() -> str:
    """The Python version and the sha256 of the rows, for the record of a run."""
    rows = "\n".join("\t".join(row) for row in docstrings())
    return f"Python {sys.version.split()[0]}, sha256 {hashlib.sha256(rows.encode()).hexdigest()}"


def few_shot(
    *, per_class: int = 16, validation_per_class: int = 20, test_per_class: int = 50, seed: int = 0
) -> dict[str, dict[str, list[str]]]:
    """Disjoint splits, balanced over the topics: ``{split: {"text": [...], "label": [...]}}``.

    What is held out does not depend on ``per_class``, and a smaller training split is the start of a larger one.

    Raises:
        DataError: A topic has too few texts.
    """
    sizes = {"test": test_per_class, "validation": validation_per_class, "train": per_class}
    splits: dict[str, dict[str, list[str]]] = {
        name: {"text": [], "label": []} for name in ("train", "validation", "test")
    }
    for topic in CHAPTERS:
        texts = [row.text for row in docstrings() if row.topic == topic]
        _check_enough(texts, topic=topic, needed=sum(sizes.values()))
        order = iter(generator(seed, "pydocs", topic).permutation(len(texts)))
        for name, size in sizes.items():
            splits[name]["text"] += [texts[next(order)] for _ in range(size)]
            splits[name]["label"] += [topic] * size
    return splits


def _check_enough(texts: Sequence[str], *, topic: str, needed: int) -> None:
    if len(texts) >= needed:
        return
    raise DataError(
        f"pydocs: topic {topic!r} has {len(texts)} texts and {needed} are needed (training, validation and test"
        f" together). With fewer than 150 this Python came without the sources of its standard library"
        f" (looked in {_library()}): use a Python that has them, such as python.org's, or your own data with"
        " task.data={train: FILE.csv, validation: FILE.csv}. Else ask for fewer examples per class."
    )


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _texts(module: str) -> Iterator[str]:
    for path in _sources(module):
        with tokenize.open(path) as source:  # honours a coding line
            tree = ast.parse(source.read())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = paragraph_of(node)
                if text is not None:
                    yield text


def functions(module: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All of a module or package, in the order of its sources."""
    for path in _sources(module):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


def paragraph_of(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    """The first paragraph of its docstring, if it has 5 to 60 words."""
    text = _first_paragraph(ast.get_docstring(node, clean=False) or "")
    return text if MIN_WORDS <= len(text.split()) <= MAX_WORDS and ">>>" not in text else None


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...]:
    """Their names, without that of the object or class itself."""
    found = function.args
    extra = [argument for argument in (found.vararg, found.kwarg) if argument is not None]
    names = [argument.arg for argument in (*found.posonlyargs, *found.args, *found.kwonlyargs, *extra)]
    return tuple(name for name in names if name not in ("self", "cls", "mcls"))


def _sources(module: str) -> list[Path]:
    file = _library() / f"{module}.py"
    if file.is_file():
        return [file]
    inside = sorted(file.with_suffix("").rglob("*.py"))
    return [path for path in inside if not {"test", "tests"} & set(path.relative_to(_library()).parts)]


def _first_paragraph(docstring: str) -> str:
    return " ".join(inspect.cleandoc(docstring).split("\n\n", maxsplit=1)[0].split())
