"""What a demonstration prints: one table per modality, what was left where, and what to type next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..cli.tables import console, print_table
from ..forking.children import Report
from ..wording import count
from .courses import Course, Trained

COLUMNS = ("strategy", "trained", "accuracy", "seconds", "memory")
MEMORY = "memory: peak of the run's own process, above the libraries that all runs share"
_WORDS = {
    "tfidf": "baseline: TF-IDF + logistic regression",
    "pixels": "baseline: pixels + logistic regression",
    "scratch": "full, from random weights",
    "full-timm": "full, same weights through timm",
}
_ABOUT = {
    "text": "MiniLM-L6, a pretrained BERT, on docstrings of the standard library (topic = chapter of its manual)",
    "images": "a small ViT pretrained on printed letters, on scikit-learn's handwritten digits",
}


class Row(NamedTuple):
    """One line of a table."""

    name: str
    report: Report

    @property
    def trained(self) -> Trained | None:
        """What was measured; None where it failed."""
        return self.report.value


class Part(NamedTuple):
    """One modality: its rows, or why there are none."""

    course: Course
    rows: Sequence[Row]
    skipped: str = ""
    exit_code: int = 0


def label(name: str) -> str:
    """A row's name in words."""
    return _WORDS.get(name, name)


def print_part(part: Part) -> None:
    """Heading, table, and the faults of rows without numbers."""
    out = console()
    about = _ABOUT.get(part.course.name, part.course.recipe)
    out.print(f"{part.course.name}: {about}", markup=False)
    if part.skipped:
        out.print(f"not run: {part.skipped}\n", markup=False, soft_wrap=True)
        return
    done = [row.trained for row in part.rows if row.trained is not None]
    if done:
        out.print(_sizes(done), markup=False)
    print_table(COLUMNS, [_cells(row) for row in part.rows], right=range(1, len(COLUMNS)))
    for row in part.rows:
        if row.report.error:
            out.print(f"{row.name} failed: {row.report.error}", markup=False, soft_wrap=True)


def print_ending(parts: Sequence[Part], output: Path, *, seconds: float) -> None:
    """What was left, and the next commands."""
    out = console()
    for line in ending(parts, output, seconds=seconds):
        out.print(line, markup=False, soft_wrap=True)


def ending(parts: Sequence[Part], output: Path, *, seconds: float) -> Iterator[str]:
    """The last lines."""
    left = {row.name: row.trained for part in parts for row in part.rows if row.trained and row.trained.folder}
    yield f"{MEMORY}. All in {seconds:.0f} s."
    if left:
        yield f"Run folders are in {output} (without checkpoints, which `finetune train` keeps). model/ opens with the"
        yield "plain libraries:"
        yield from (f"  {line}" for line in _openers(parts))
    yield "See a run before it starts, then start it:"
    yield "  finetune plan bert_text --recipe gradual_unfreeze"
    yield "  finetune train bert_text --recipe gradual_unfreeze"
    yield "The real thing, with a network; larger models and data want lower rates and fewer epochs:"
    usual = "length='3 epochs' batch_size=32"
    text, image = "google-bert/bert-base-uncased", "google/vit-base-patch16-224-in21k"
    bert, vit = "optimizer.lr=2e-5 optimizer.head_lr=2e-5", "optimizer.lr=5e-5 optimizer.head_lr=1e-3"
    yield f"  finetune train bert_text task.model={text} task.data=sst2 {bert} {usual}"
    yield f"  finetune train vit_images task.model={image} task.data=cifar10 {vit} {usual}"


def as_json(parts: Sequence[Part], *, seconds: float) -> dict[str, Any]:
    """The same as JSON can hold it; a fault stands in the place of its numbers."""
    return {
        "seconds": round(seconds, 1),
        "memory": MEMORY,
        **{
            part.course.name: {"recipe": part.course.recipe, "not_run": part.skipped or None, "rows": _json_rows(part)}
            for part in parts
        },
    }


def _json_rows(part: Part) -> list[dict[str, Any]]:
    return [
        {
            "name": row.name,
            **(row.trained._asdict() if row.trained is not None else {}),
            "seconds": round(row.report.seconds, 2),
            "peak_bytes": row.report.peak_bytes,
            "error": row.report.error or None,
        }
        for row in part.rows
    ]


def _sizes(done: Sequence[Trained]) -> str:
    """Examples, chance, and how far two accuracies must differ to mean anything."""
    first = done[0]
    held_out = list(first.examples)[-1]
    middle = sorted(entry.accuracy for entry in done)[len(done) // 2]
    margin = 1.96 * math.sqrt(max(middle * (1 - middle), 1e-9) / first.examples[held_out])
    return (
        f"{first.examples['train']} training examples, {first.classes} classes (chance {1 / first.classes:.1%});"
        f" accuracy on {first.examples[held_out]} {held_out} examples, one seed, +-{100 * margin:.1f} points"
    )


def _cells(row: Row) -> list[str]:
    done, report = row.trained, row.report
    memory = "" if report.peak_bytes is None else f"{report.peak_bytes / 1e6:.0f} MB"
    if done is None:
        return [label(row.name), "", "failed", f"{report.seconds:.1f}", memory]
    return [label(row.name), count(done.trained), f"{done.accuracy:.1%}", f"{report.seconds:.1f}", memory]


def _openers(parts: Sequence[Part]) -> Iterator[str]:
    left = {(part.course.name, row.name): row.trained for part in parts for row in part.rows}
    text, image = left.get(("text", "full")), left.get(("images", "full-timm"))
    if text is not None:
        call = f"pipeline('text-classification', '{text.folder}/model')('Return the arc sine of x.')"
        yield f'python -c "from transformers import pipeline; print({call})"'
    if image is not None:
        call = f"timm.create_model('local-dir:{image.folder}/model', pretrained=True)"
        yield f'python -c "import timm; print({call}.default_cfg)"'
