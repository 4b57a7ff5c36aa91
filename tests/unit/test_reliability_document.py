"""``docs/reliability.md`` names tests that exist, and every promise names one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from finetune import errors
from tests.named_tests import TREE, exists

TEXT = (TREE / "docs" / "reliability.md").read_text(encoding="utf-8")
PROMISES = [line.split("|")[1:-1] for line in TEXT.partition("## Exit codes")[0].splitlines() if line.startswith("|")]
NAMED = re.findall(r"`((?:tests|benchmarks)/[^`]+)`", TEXT)


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_what_it_names_exists(name):
    assert exists(name) if "::" in name else (TREE / name).exists()


def test_every_promise_is_held_by_something():
    for promise, held, _figure in PROMISES[2:]:
        assert re.search(r"`(?:tests|benchmarks)/", held), promise
    numbers = {int(number) for promise, *_ in PROMISES for number in re.findall(r"\*\*(\d+) ", promise)}
    assert numbers == set(range(1, 17))


def test_every_exit_code_is_told():
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert told == {0, 1, *(kind.exit_code for kind in kinds)}


def test_every_link_leads_somewhere():
    for document in (TREE / "docs" / "reliability.md", TREE / "SECURITY.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).exists(), (Path(document).name, link)
