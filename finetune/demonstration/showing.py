"""The course of a demonstration: warm up once, run each row on its own, print a table per modality."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..environment import cores
from ..errors import FinetuneError
from ..forking.children import FORKS, report_of
from ..forking.warming import warm
from .courses import Course, baseline, courses, trained
from .folder import claim, write_results
from .report import Part, Row, as_json, label, print_ending, print_part

Work = tuple[str, Callable[[], Any]]


def main(
    *,
    output: Path = Path("runs/demo"),
    json_only: bool = False,
    chosen: Sequence[Course] | None = None,
    forks: bool = FORKS,
) -> int:
    """Run the demonstration and print its tables.

    Args:
        output: Gets a run folder per row.
        json_only: Standard output holds one JSON document, and no table.
        chosen: What to run; None: texts and images.
        forks: False runs everything in this process, without measuring memory.

    Returns:
        The exit code: 0, or that of the first fault, whatever else ran.

    Raises:
        RunFolderError: ``output`` cannot be used.
        KeyboardInterrupt: Ctrl-C; what has finished stays in ``output``.
    """
    began = time.monotonic()
    lock, moved = claim(output)
    try:
        if moved:
            _say(moved)
        _say(f"importing the libraries; then one run after the other, on {cores()} core{'s' if cores() > 1 else ''}")
        warm()
        parts = []
        for course in courses() if chosen is None else chosen:
            parts.append(run_course(course, output, forks=forks))
            write_results(output, as_json(parts, seconds=time.monotonic() - began))
            if not json_only:
                print_part(parts[-1])
    except KeyboardInterrupt:
        _say(f"interrupted; what has finished is in {output}")
        raise
    finally:
        lock.release()
    seconds = time.monotonic() - began
    if json_only:
        print(json.dumps(as_json(parts, seconds=seconds), indent=2))
    else:
        print_ending(parts, output, seconds=seconds)
    codes = [code for part in parts for code in (part.exit_code, *(row.report.exit_code for row in part.rows))]
    return next((code for code in codes if code), 0)


def run_course(course: Course, output: Path, *, forks: bool = FORKS) -> Part:
    """Every row of one modality; a fault in one leaves the others alone."""
    try:
        course.prepare()
    except FinetuneError as error:
        _say(f"{course.name}: not run: {error}")
        return Part(course, (), skipped=" ".join(str(error).split()), exit_code=error.exit_code)
    works = list(_works(course, output))
    rows = []
    for number, (name, work) in enumerate(works, start=1):
        place = f"{course.name} {number}/{len(works)}  {label(name)}"
        if sys.stderr.isatty():
            _say(place)
        crash_log = output / f"{course.name}-{name}.crash.txt"
        report = report_of(work, crash_log=crash_log, threads=course.threads, forks=forks)
        rows.append(Row(name, report))
        if report.error:
            _say(f"{place}: failed: {report.error}")
        else:
            _say(f"{place}: accuracy {report.value.accuracy:.1%} in {report.seconds:.1f} s")
    return Part(course, rows)


def _works(course: Course, output: Path) -> Iterator[Work]:
    # The bar of a run is for people who look on; elsewhere its result is enough.
    run = partial(trained, course, show="progress" if sys.stderr.isatty() else "nothing")
    yield course.baseline.__name__, partial(baseline, course)
    for function in course.functions:
        yield function, partial(run, function, output / f"{course.name}-{function}")
    if course.export_to_timm is not None:
        yield "full-timm", partial(_through_timm, course, run, output)


def _through_timm(course: Course, run: Callable[..., Any], output: Path) -> Any:
    assert course.export_to_timm is not None
    source = course.export_to_timm(output / f"{course.name}-pretrained-timm")
    return run("full", output / f"{course.name}-full-timm", timm_source=source)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
