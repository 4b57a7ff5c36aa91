"""A defect: one place of one file, as it is and as it must not be."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Defect(NamedTuple):
    """What to break, and what must notice.

    Args:
        name: What the library would do wrong.
        file: Below the root of the tree.
        old: Text that the file holds exactly once.
        new: What stands there instead.
        test: The id of the test that must turn red.
    """

    name: str
    file: str
    old: str
    new: str
    test: str

    def put_into(self, root: Path) -> str:
        """Break the file below ``root``, and return its text as it was.

        Raises:
            LookupError: The old text does not stand there exactly once.
        """
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise LookupError(f"{self.name}: {self.file} holds the old text {count} times, expected once")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")
        return text
