"""What the reproductions share: small tasks drawn anew for each seed, runs, paired differences, their results' file.

Every arm of a script sees the same data, labels, start and number of updates for a seed, so arms are compared pair by
pair. A sign is said to be reproduced by a rule that the script fixes before it runs, and by nothing else.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finetune import AdamW, Checkpointing, ImageClassification, TextClassification, WarmupCosine, WarmupLinear, fit
from finetune.comparing.statistics import deviation, mean
from finetune.randomness import generator
from finetune.tasks.base import Task
from finetune.training import FitResult

RESULTS = Path(__file__).with_name("RESULTS.md")
ORDER = ("label_noise", "lp_ft", "last_layer_vs_gradual", "lora_within_a_point", "layer_decay_tables", "lr_find")
LEVEL = 0.95  # of the intervals

Scores = dict[str, list[float]]  # by arm, one for each seed


class Course(NamedTuple):
    """A small task, and what is the same for all arms on it."""

    name: str
    task: Callable[[int], Task]
    settings: Mapping[str, Any]


class Difference(NamedTuple):
    """Mean of paired differences, with its 95 % interval (Student 1908); infinite for fewer than two pairs."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def paired(scores: Sequence[float], others: Sequence[float]) -> Difference:
    """``scores`` minus ``others``, seed by seed."""
    from scipy import stats

    found = [score - other for score, other in zip(scores, others, strict=True)]
    middle = mean(found)
    if len(found) < 2:
        return Difference(middle, -math.inf, math.inf)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(found) - 1)) * deviation(found) / math.sqrt(len(found))
    return Difference(middle, middle - half, middle + half)


def digits(seed: int, *, per_class: int = 20, wrong: float = 0.0) -> ImageClassification:
    """Handwritten digits for the small ViT; with a share of wrong labels in the training split, and only there."""
    from finetune.data.digits import few_shot

    return ImageClassification(model="glyph_vit", data=_data(few_shot(per_class=per_class, seed=seed), seed, wrong))


def docstrings(seed: int, *, per_class: int = 16, wrong: float = 0.0) -> TextClassification:
    """Docstrings by chapter of the manual for MiniLM; with wrong labels as ``digits`` has them."""
    from finetune.data.pydocs import few_shot

    data = _data(few_shot(per_class=per_class, seed=seed), seed, wrong)
    return TextClassification(model="minilm", data=data, max_length=48)


def on_digits(*, name: str = "digits, small ViT", length: str = "20 epochs", **data: Any) -> Course:
    """Digits with the optimizer and the schedule of ``recipes/vit_images.py``."""
    settings = {
        "optimizer": AdamW(lr=5e-4, head_lr=2e-3, weight_decay=0.05),
        "schedule": WarmupCosine(warmup="10%", floor=0.01),
        "length": length,
        "batch_size": 16,
    }
    return Course(name, lambda seed: digits(seed, **data), settings)


def on_docstrings(*, name: str = "docstrings, MiniLM", length: str = "6 epochs", **data: Any) -> Course:
    """Docstrings with the optimizer and the schedule of ``recipes/bert_text.py``."""
    settings = {
        "optimizer": AdamW(lr=1e-4, head_lr=3e-3, weight_decay=0.01),
        "schedule": WarmupLinear(warmup="10%"),
        "length": length,
        "batch_size": 16,
    }
    return Course(name, lambda seed: docstrings(seed, **data), settings)


def with_wrong(labels: Sequence[str], *, share: float, seed: int) -> list[str]:
    """The labels, this share of them each replaced by another class, all others being equally likely."""
    classes = sorted(set(labels))
    random = generator(seed, "wrong labels")
    chosen = set(random.permutation(len(labels))[: round(share * len(labels))].tolist())
    found = list(labels)
    for at in sorted(chosen):
        found[at] = classes[(classes.index(found[at]) + int(random.integers(1, len(classes)))) % len(classes)]
    return found


def _data(splits: Mapping[str, Mapping[str, list[Any]]], seed: int, wrong: float) -> dict[str, Any]:
    from datasets import Dataset

    train = {**splits["train"], "label": with_wrong(splits["train"]["label"], share=wrong, seed=seed)}
    return {name: Dataset.from_dict(dict(rows)) for name, rows in {**splits, "train": train}.items()}


def trained(task: Task, settings: Mapping[str, Any], *, seed: int, **changes: Any) -> FitResult:
    """A run that ends with its last weights: choosing the best by validation would hide what training did."""
    last = Checkpointing(keep_best=0, keep_last=1, every="100%")
    settings = {"checkpoint": last, "evaluate_every": "100%", **settings, **changes}
    return fit(task, **settings, seed=seed, show="nothing")


def accuracy(result: FitResult, split: str = "test") -> float:
    """In percent, of the run's weights."""
    return 100 * result.metrics[split]["accuracy"]


def arm_by_arm(course: Course, arms: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> Scores:
    """The test accuracy of each arm, which is what differs from the course's settings, and seed."""
    scores: Scores = {name: [] for name in arms}
    for seed in seeds:
        task = course.task(seed)
        for name, changes in arms.items():
            scores[name].append(accuracy(trained(task, course.settings, seed=seed, **changes)))
            told(f"{course.name}, seed {seed}, {name}: {scores[name][-1]:.1f}")
    return scores


def score_table(title: str, scores: Scores, *, against: str = "", more: Mapping[str, Any] | None = None) -> str:
    """A row for each arm: mean, standard deviation, number of seeds, and the paired difference to one of the arms."""
    more = more or {}
    head = [title, "mean", "sd", "n", *([f"minus {against}"] if against else []), *more]
    rows = []
    for name, found in scores.items():
        row = [name, f"{mean(found):.1f}", f"{deviation(found):.1f}", str(len(found))]
        if against:
            row.append("" if name == against else str(paired(found, scores[against])))
        rows.append([*row, *(str(column[name]) for column in more.values())])
    return table(head, rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; the first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sign(claim: str, *, holds: bool, numbers: str) -> str:
    """A line of the results: the claim, and whether it showed."""
    return f"- **{'Reproduced' if holds else 'Not reproduced'}**: {claim} ({numbers})."


def told(line: str) -> None:
    """Say where a script is; its runs take minutes."""
    print(line, flush=True)


def main(name: str, section: Callable[[Sequence[int]], str], *, seeds: int, doc: str | None) -> None:
    """Run a script and put what it found into its section of ``RESULTS.md``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=seeds, help="number of seeds, from 1 on")
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    began = time.process_time()
    text = section(range(1, words.seeds + 1))
    write(name, text, words.out)
    told(f"\n{text}\n\n{words.out}; {(time.process_time() - began) / 60:.1f} CPU minutes")


def write(name: str, text: str, file: Path) -> None:
    """Replace the section of this name; the others stay as they are."""
    sections = dict(_sections(file.read_text(encoding="utf-8"))) if file.exists() else {}
    sections[name] = f"## {name}\n\n{text.strip()}\n"
    rank = {known: at for at, known in enumerate(ORDER)}
    ordered = sorted(sections, key=lambda known: rank.get(known, len(rank)))
    file.write_text(_HEAD + "\n" + "\n".join(sections[known] for known in ordered), encoding="utf-8")


def section_of(name: str, file: Path) -> str:
    """What the file holds of a script; empty where it has not run."""
    return dict(_sections(file.read_text(encoding="utf-8"))).get(name, "") if file.exists() else ""


def _sections(text: str) -> Iterator[tuple[str, str]]:
    for part in f"\n{text}".split("\n## ")[1:]:
        yield part.split("\n", 1)[0].strip(), f"## {part.strip()}\n"


_HEAD = """# Signs of papers, reproduced in kind

Small offline tasks, so what is compared is the direction of an effect and not its size. Each script writes its section
(`python -m benchmarks.reproductions.NAME`). For a seed, all arms have the same data, labels, start and number of
updates; the seed draws all of them anew. Accuracies in % on clean test data, of the last weights of a run. Differences
are paired by seed: mean [95 % interval, Student's t]. What counts as reproduced stands in each script.
"""


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, as a cell has them."""
    return f"{np.mean(values):.2f} ± {deviation(values):.2f}"
