"""Curricula and SuperLoss with 0 % and 40 % wrong labels, beside random order with the same pacing.

    python -m benchmarks.reproductions.label_noise

Wu et al. 2021 (arXiv 2012.03107): on clean data a curriculum does as well as random order; it gains under label noise.
Castells et al. 2020: SuperLoss gains under label noise. All arms take as many updates.

Difficulty by loss is that of the plain run's last weights, as is its data map: both were trained on the wrong labels.
Reproduced means: at 40 % the whole interval of the paired difference (to the control arm for curricula, to plain
training for SuperLoss) is above 0; at 0 %, that no mean of a paired difference, to the control arm or to plain
training, is below -1 point.

Each curriculum runs with two pacings, and each pacing has its own control arm, which says what it costs to show so
little at first; the difference to it is what the order is worth. "All from half of the run" is the default of
``Curriculum``; "all at the end" shows half at first and the last example with the last update.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune import Curriculum, DataMap, DataMapScore, Freeze, SuperLoss, TeacherLoss, TextClassification
from finetune.tasks.base import Task

from .signs import (
    Course,
    Difference,
    Scores,
    accuracy,
    main,
    on_digits,
    on_docstrings,
    paired,
    score_table,
    sign,
    told,
    trained,
)

SHARES = (0.0, 0.4)
PLAIN, CONTROL, SUPER = "all examples always", "control: random order", "SuperLoss"
LOSS, MAP, LENGTH = "easy first by loss", "easy first by data map (confidence)", "easy first by length"
PACINGS: Mapping[str, Mapping[str, Any]] = {
    "all from half of the run": {},
    "all at the end": {"pacing": "linear", "start": 0.5, "until": "100%"},
}
NO_LOSS = -1.0  # points


def courses(wrong: float) -> tuple[Course, Course]:
    """Images, and texts of which only the two upper layers train, so that the lower four are computed once."""
    texts = on_docstrings(wrong=wrong)
    upper = Freeze(trainable=("layer.-2", "layer.-1", "head"))
    return (
        on_digits(per_class=40, length="12 epochs", wrong=wrong),
        texts._replace(settings={**texts.settings, "strategy": upper}),
    )


def section(seeds: Sequence[int]) -> str:
    """What the script found, for ``RESULTS.md``; texts, which take longer, with three seeds at most."""
    return composed({
        wrong: [measured(images, seeds), measured(texts, seeds[:3])]
        for wrong, (images, texts) in ((wrong, courses(wrong)) for wrong in SHARES)
    })  # fmt: skip


def composed(found: Mapping[float, Sequence[Scores]]) -> str:
    """The section from the scores of each course, by share of wrong labels."""
    parts = [str(__doc__).split("\n\n", 2)[2].strip()]
    for course, clean, noisy in zip(courses(0.0), *(found[wrong] for wrong in SHARES), strict=True):
        for wrong, scores in zip(SHARES, (clean, noisy), strict=True):
            parts.append(score_table(f"{course.name}, {wrong:.0%} wrong", scores, more=columns(scores)))
        parts.append("\n".join(signs(clean, noisy)))
    return "\n\n".join(parts)


def measured(course: Course, seeds: Sequence[int]) -> Scores:
    """The accuracy of every arm; the plain run notes the data map, which changes nothing in it."""
    scores: Scores = {}
    for seed in seeds:
        task = course.task(seed)
        with tempfile.TemporaryDirectory() as folder:
            run = str(Path(folder, "plain"))
            plain = trained(DataMap(base=task), course.settings, seed=seed, output_dir=run)
            scores.setdefault(PLAIN, []).append(accuracy(plain))
            for name, changes in arms(task, run).items():
                weighed = SuperLoss(base=task) if name == SUPER else task
                result = trained(weighed, course.settings, seed=seed, **changes)
                scores.setdefault(name, []).append(accuracy(result))
        told(f"{course.name}, seed {seed}: " + ", ".join(f"{name} {of[-1]:.1f}" for name, of in scores.items()))
    return scores


def arms(task: Task, run: str) -> dict[str, dict[str, Any]]:
    """What each arm adds to the plain run, which is in this folder; texts go by length, images by the two others."""
    difficulties: dict[str, Any] = {LOSS: TeacherLoss(model=run), MAP: DataMapScore(run=run)}
    if isinstance(task, TextClassification):
        difficulties = {LENGTH: "length"}
    by_data = next(reversed(difficulties.values()))  # of any: the control arm ranks by chance
    found: dict[str, dict[str, Any]] = {}
    for words, pacing in PACINGS.items():
        found[f"{CONTROL}; {words}"] = {"curriculum": Curriculum(difficulty=by_data, order="random", **pacing)}
        for name, by in difficulties.items():
            found[f"{name}; {words}"] = {"curriculum": Curriculum(difficulty=by, **pacing)}
    return {**found, SUPER: {}}


def control_of(name: str) -> str:
    """The arm of random order with the pacing of this one; empty for one without a pacing."""
    order, _, words = name.partition("; ")
    return f"{CONTROL}; {words}" if words and order != CONTROL else ""


def columns(scores: Scores) -> dict[str, dict[str, str]]:
    """The differences of each arm to its control and to plain training."""
    against = {"minus its control": control_of, "minus all always": lambda name: "" if name == PLAIN else PLAIN}
    return {
        head: {name: str(paired(scores[name], scores[other])) if (other := of(name)) else "" for name in scores}
        for head, of in against.items()
    }


def signs(clean: Scores, noisy: Scores) -> list[str]:
    """What showed and what did not."""
    lines = []
    for name in (name for name in clean if control_of(name) or name == SUPER):
        control = control_of(name)
        arms_beside = {"control": control, "plain": PLAIN} if control else {"plain": PLAIN}
        at_0, at_40 = (
            {word: paired(scores[name], scores[arm]) for word, arm in arms_beside.items()} for scores in (clean, noisy)
        )
        is_level = all(difference.mean > NO_LOSS for difference in at_0.values())
        is_gain = next(iter(at_40.values())).low > 0
        lines.append(sign(f"{name}: no loss on clean data", holds=is_level, numbers=beside(at_0)))
        lines.append(sign(f"{name}: a clear gain at 40 % wrong labels", holds=is_gain, numbers=beside(at_40)))
    return lines


def beside(differences: Mapping[str, Difference]) -> str:
    """The differences to each arm, in words."""
    return "; ".join(f"minus {word} {difference}" for word, difference in differences.items())


if __name__ == "__main__":
    main("label_noise", section, seeds=5, doc=__doc__)
