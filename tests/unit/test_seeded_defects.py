"""The list of seeded defects does not rot: each still has its place in the library, and its test still exists."""

from __future__ import annotations

import ast

import pytest

from tests.named_tests import exists
from tests.seeded_defects.__main__ import TREE
from tests.seeded_defects.all_defects import DEFECTS
from tests.seeded_defects.defect import Defect


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_still_has_its_place(defect, tmp_path):
    text = (TREE / defect.file).read_text(encoding="utf-8")
    (tmp_path / defect.file).parent.mkdir(parents=True)
    (tmp_path / defect.file).write_text(text, encoding="utf-8")
    assert defect.put_into(tmp_path) == text
    broken = (tmp_path / defect.file).read_text(encoding="utf-8")
    assert broken != text
    ast.parse(broken)  # red for what it does, not because it cannot be read
    assert exists(defect.test), defect.test


def test_there_are_enough_and_none_is_there_twice():
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS) >= 20


def test_a_place_that_is_gone_or_there_twice_is_an_error(tmp_path):
    (tmp_path / "f.py").write_text("a\na\n")
    for old in ("a\n", "b\n"):
        with pytest.raises(LookupError, match="expected once"):
            Defect("x", "f.py", old, "", "").put_into(tmp_path)
    assert (tmp_path / "f.py").read_text() == "a\na\n"
