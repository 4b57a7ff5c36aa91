"""Which checkpoints stay, as a function of what was saved: of no clock, no file, and nothing that went before.

Each rule keeps its own, and what one of them keeps stays. None ever wants one back that it has let go, so deleting
after every save leaves what deleting once at the end would.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence


def retained(
    saved: Sequence[tuple[int, float | None]],
    *,
    keep_last: int,
    keep_best: int,
    marks: Sequence[int] = (),
    saves: Sequence[int] = (),
) -> set[int]:
    """The steps to keep: the newest, and what the rules say.

    Args:
        saved: Each checkpoint's step, and its score where it was evaluated (higher is better). The earlier
            of two equal scores is the better; NaN is never among the best.
        keep_last: How many of the newest; the newest stays even for 0.
        keep_best: How many of the best.
        marks: Ascending steps; the first checkpoint at or after each, and before the next, stays.
        saves: Ascending steps at which saves are due; those of them stay that are spaced by age. Empty: none.
    """
    steps = [step for step, _ in saved]
    newest = sorted(steps, reverse=True)[: max(1, keep_last)]
    return {*newest, *best_steps(saved)[: max(0, keep_best)], *first_after(steps, marks), *spaced(steps, saves)}


def best_steps(saved: Sequence[tuple[int, float | None]]) -> list[int]:
    """The steps that have a score, the best first; the earlier of two equal ones is the better."""
    scored = [(-score, step) for step, score in saved if score is not None and not math.isnan(score)]
    return [step for _, step in sorted(scored)]


def first_after(steps: Iterable[int], marks: Sequence[int]) -> set[int]:
    """The first step at or after each mark, and before the next."""
    firsts: dict[int, int] = {}
    for step in sorted(steps):
        firsts.setdefault(bisect_right(marks, step), step)
    return {step for number, step in firsts.items() if number}


def spaced(steps: Sequence[int], saves: Sequence[int]) -> set[int]:
    """One step of each doubling of age, counted in saves: 0, 1, 2 to 3, 4 to 7, 8 to 15 … saves before the newest.

    Of the ages 2**k to 2**(k + 1) - 1 it is the save whose number is a multiple of 2**k: there is just one, and it
    was also the one of every younger span. So a save stays while its age is below twice the highest power of two
    that divides its number, which is never true again once it is false.
    """
    newest = bisect_right(saves, max(steps, default=0))
    numbered = [(step, bisect_right(saves, step)) for step in steps]
    due = [(step, number) for step, number in numbered if number and saves[number - 1] == step]
    return {step for step, number in due if newest - number < 2 * (number & -number)}
