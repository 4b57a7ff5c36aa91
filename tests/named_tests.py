"""Whether a test that a document or list names is there."""

from __future__ import annotations

import ast
from pathlib import Path

TREE = Path(__file__).parents[1]


def exists(test: str) -> bool:
    """Whether ``tests/unit/test_x.py::test_y[case]`` names a test function; cases are not looked at.

    Args:
        test: The id, from the root of the tree.
    """
    file, _, name = test.partition("::")
    if not (TREE / file).is_file():
        return False
    tree = ast.parse((TREE / file).read_text(encoding="utf-8"))
    return name.partition("[")[0] in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
