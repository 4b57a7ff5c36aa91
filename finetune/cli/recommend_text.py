"""A recommendation as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..wording import count, size
from .plan_tables import print_plan
from .tables import print_table

if TYPE_CHECKING:
    from ..recommending import Recommendation
    from .recommend import FilesToWrite

_MEANT = {"classes": "accuracy", "labels": "labels that are right", "values": "squared error"}


def print_recommendation(found: Recommendation, files: FilesToWrite, *, title: str, saved: bool) -> None:
    """Prints the rule, what it goes by, what to look at first, the YAML, its plan and its cost."""
    from .tables import console

    width = console().width
    for line in _head(found, title):
        print(line if not line.startswith("  ") else _wrapped(line, width))
    print()
    _print_depths(found)
    for note in found.notes:
        print(_wrapped(f"  note       {note}", width))
    print("\n# recommended.yaml")
    print(files.texts[0])
    print_plan(found.plan, title="its plan")
    print()
    for line in _foot(found, files, saved=saved):
        print(line)


def _head(found: Recommendation, title: str) -> Iterator[str]:
    rule, data, near = found.rule, found.data, found.similarity
    what = "texts" if data.is_text else "images"
    large = found.priors.large_from(is_text=data.is_text)
    yield f"{title}: {rule.size} and {rule.likeness}, so {rule.words}"
    yield (
        f"  size       {count(data.num_examples)} training {what}: {rule.size}, as large begins at {count(large)} "
        "(prior)"
    )
    yield (
        f"  similarity {near.similarity:.2f} (95 % interval {near.low:.2f} to {near.high:.2f}): {rule.likeness}, as "
        f"similar begins at {found.priors.similar:g} (prior); the share of errors of one answer for all that a probe "
        "on frozen features avoids"
    )
    yield f"  measured   on {count(found.num_measured)} training examples, each left out in turn; nothing was trained"
    yield (
        "  priors     the table of size and similarity is a rule of thumb, and none of its thresholds were fitted to "
        "this data. On our own small tasks training every layer did better than the head alone even where they "
        "counted as similar: compare decides"
    )
    if found.is_close:
        yield f"  close      the threshold lies in the interval; {found.alternative.name} is as well founded"


def _print_depths(found: Recommendation) -> None:
    def told(error: float) -> str:
        return f"{error:.4g}" if found.kind == "values" else f"{1 - error:.1%}"

    rows = [["one answer for all", told(found.constant_error), ""]]
    for one in found.depths:
        for name, probe in (("20 nearest neighbours", one.nearest), ("linear probe", one.linear)):
            rows.append([f"{name}, {one.name}", told(probe.error), f"{probe.similarity:.2f}"])
    print_table(("of frozen features", _MEANT[found.kind], "similarity"), rows, right=(1, 2))


def _foot(found: Recommendation, files: FilesToWrite, *, saved: bool) -> Iterator[str]:
    cost = found.cost
    yield (
        f"cost      about {_time(cost.seconds)} on this machine with one process, {cost.share_of_full:.0%} of "
        f"training every layer; {size(cost.memory)}, {count(cost.num_trained)} trained parameters"
    )
    yield f"train     {files.commands[0]}"
    yield f"rate      {files.commands[1]}"
    yield f"decide    {files.commands[2]}"
    if not saved:
        yield "          (--save FOLDER writes both files; compare.yaml is:)"
        yield ""
        yield textwrap.indent(files.texts[1].rstrip(), "          ")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _wrapped(line: str, width: int) -> str:
    return textwrap.fill(line, max(60, width), subsequent_indent=" " * 13, break_long_words=False)
