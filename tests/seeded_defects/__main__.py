"""``python -m tests.seeded_defects``: put each defect into a copy of the tree, and see its one test turn red there.

Words after the command are parts of names; only defects that hold one of them are tried then.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

from tests.seeded_defects.all_defects import DEFECTS
from tests.seeded_defects.defect import Defect

TREE = Path(__file__).parents[2]
_COPIED = ("finetune", "tests", "recipes", "accelerate_configs", "benchmarks", "docs")
_LEFT_OUT = ("__pycache__", ".*", "*.egg-info")
_OURS = {"tests", "finetune", "recipes", "benchmarks"}
_LIBRARIES = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "timm",
    "datasets",
    "hypothesis",
    "sklearn",
    "pydantic",
    "typer",
)
_WITHIN_S = 300  # of one test; a defect may make it hang, which is noticed too
_PASSED, _FAILED = 0, 1  # exit codes of pytest; others say that the test itself could not run


def main(words: Sequence[str]) -> int:
    """Try the defects; 1 where one survives, or could not be tried."""
    chosen = [one for one in DEFECTS if not words or any(word in one.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="seeded-defects-") as folder:
        root = Path(folder) / "tree"
        copy_tree(root)
        load_libraries()
        passes = cache(lambda test: ran([test], root) == _PASSED)
        found = [(one, verdict(one, root, passes)) for one in chosen]
    caught = sum(said == "caught" for _, said in found)
    sys.stdout.write(f"\n{caught} of {len(found)} defects are caught, each by one test\n")
    return int(caught < len(found))


def copy_tree(root: Path) -> None:
    """Copy the tree, and have every interpreter that a test starts import the copy."""
    root.mkdir()
    for path in TREE.iterdir():
        if path.is_file():
            shutil.copy(path, root)
    for name in _COPIED:
        shutil.copytree(TREE / name, root / name, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    os.environ |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    sys.dont_write_bytecode = True  # a file that is broken and mended within a second would be taken for the other
    words = [sys.executable, "-c", "import finetune; print(finetune.__file__)"]
    done = subprocess.run(words, cwd=root.parent, check=True, capture_output=True, text=True)
    assert Path(done.stdout.strip()).is_relative_to(root), done.stdout


def verdict(defect: Defect, root: Path, passes: Callable[[str], bool]) -> str:
    """Try one, leave the copy as it was, and write its line of the table.

    Args:
        defect: What to try.
        root: Of the copy.
        passes: Whether a test passes without any defect.
    """
    if not passes(defect.test):
        said = "NOT TRIED: its test fails without it"
    else:
        try:
            text = defect.put_into(root)
        except LookupError as fault:
            said = f"NOT TRIED: {fault}"
        else:
            ended = ran([defect.test], root)
            (root / defect.file).write_text(text, encoding="utf-8")
            said = {_FAILED: "caught", _PASSED: "SURVIVES"}.get(ended, f"NOT TRIED: pytest ended with {ended}")
    sys.stdout.write(f"{said:8}  {defect.name}\n          {defect.file}  by  {defect.test}\n")
    sys.stdout.flush()
    return said


def ran(tests: Sequence[str], root: Path) -> int:
    """Run tests in the copy, in a child that has the libraries and nothing of ours, and return pytest's exit code."""
    with tempfile.TemporaryFile() as printed:
        child = os.fork()
        if child == 0:
            _run(tests, root, printed.fileno())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code not in (_PASSED, _FAILED):
            printed.seek(0)
            sys.stdout.write(printed.read().decode(errors="replace")[-2000:])
    return code


def _run(tests: Sequence[str], root: Path, printed: int) -> NoReturn:
    code = -1
    try:
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        os.chdir(root)
        sys.path[:] = [str(root), *(path for path in sys.path if path not in ("", str(TREE)))]
        for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
            del sys.modules[name]
        code = int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", f"--timeout={_WITHIN_S}", *tests]))
    finally:
        os._exit(code)


def load_libraries() -> None:
    """What takes a fresh interpreter seconds, once for all tests."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    assert "finetune" not in sys.modules


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
