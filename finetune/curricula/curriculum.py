"""A curriculum: how much of the data may be drawn when, and in which order it comes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt, Le

from ..durations import Duration, DurationText
from ..progress import Progress
from ..randomness import generator
from .difficulties import Column, DataMapScore, TeacherLoss
from .pacing import WITH_POWER, Pacing, visible_share


@dataclass(frozen=True)
class Curriculum:
    """Shows a growing share of the examples, the easiest (or hardest) first (Bengio et al. 2009).

    On clean standard data a curriculum rarely beats random order at equal pacing (Wu et al. 2021); run
    ``order: random`` beside it, which shows as many examples at each step but ranks them by chance.

    Args:
        difficulty: Of texts ``length`` (tokens), ``rarity`` or ``tf_idf`` (of the tokens); of images ``edge_density``
            or ``entropy``; ``loss`` (of the starting model, measured once before training); a numeric column of the
            training data by its name; ``Column``, ``TeacherLoss`` or ``DataMapScore``; or, in Python, a function
            that takes the training split's store and gives (examples,) numbers, higher for harder.
        pacing: Share visible at t, for start s and duration T, with x = min(1, t/T): ``linear`` s + (1-s)x; ``root``
            (s^p + (1-s^p)x)^(1/p) for power p, with 2 the best of Platanios et al. 2019; ``competence`` as root, but
            by their difficulties, which are cumulative shares: equally difficult examples come together;
            ``geometric`` s^(1-x) (Penha & Hauff 2020); ``step`` linear, in ``stages`` stairs (baby steps);
            ``exponential`` s + (1-s)(e^(10x) - 1)/(e^10 - 1) and ``logarithmic`` s + (1-s)(1 + ln(x + e^-10)/10)
            (both Wu et al. 2021).
        order: ``easy_first``, ``hard_first`` or ``random`` (the control).
        start: Share visible at step 0.
        until: When all examples are visible; a percentage is of the run.
        stages: Stairs of pacing ``step``: T is cut into so many equal parts, and the share is held in each.
        power: p of pacing ``root`` and ``competence``; 1 is linear.
    """

    difficulty: str | Column | TeacherLoss | DataMapScore | Callable[..., Any] = "length"
    pacing: Pacing = "root"
    order: Literal["easy_first", "hard_first", "random"] = "easy_first"
    start: Annotated[float, Gt(0), Le(1)] = 0.3
    until: DurationText = "50%"
    stages: Annotated[int, Ge(2)] = 5
    power: Annotated[float, Gt(0)] = 2.0

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        Duration.parse(self.until)
        if not isinstance(self.difficulty, (str, Column, TeacherLoss, DataMapScore)) and not callable(self.difficulty):
            raise ValueError(
                f"difficulty: got {self.difficulty!r}; expected a word such as 'length', a Column, TeacherLoss or "
                "DataMapScore, or a function of the training split's store"
            )
        if not 0 < self.start <= 1:
            raise ValueError(f"start: got {self.start}; it is the share visible at step 0, above 0 and at most 1")
        if self.stages != 5 and self.pacing != "step":
            raise ValueError(f"stages: {self.stages} has no effect with pacing {self.pacing!r}; set pacing: step")
        if self.power != 2 and self.pacing not in WITH_POWER:
            raise ValueError(
                f"power: {self.power:g} has no effect with pacing {self.pacing!r}; set pacing: root or competence"
            )

    def share(self, progress: Progress) -> float:
        """The share of examples that may be drawn, in (0, 1]."""
        until = progress.steps(self.until)
        through = progress.step / until if until else 1.0
        return visible_share(self.pacing, through, start=self.start, power=self.power, stages=self.stages)

    def reached(self, progress: Progress, *, num_examples: int, ends: np.ndarray | None = None) -> int:
        """How many examples the share comes to, which may be fewer than an update needs.

        Args:
            progress: The clock.
            num_examples: Of the training split.
            ends: As ``Course`` has them; None where equally difficult examples need not come together.
        """
        share = self.share(progress)
        if ends is None:
            return min(num_examples, math.ceil(share * num_examples - 1e-9))
        place = int(np.searchsorted(ends, share * num_examples + 1e-9, side="right"))
        return int(ends[place - 1]) if place else 0

    def num_visible(
        self, progress: Progress, *, num_examples: int, batch_size: int, ends: np.ndarray | None = None
    ) -> int:
        """How many examples may be drawn: at least one update's worth."""
        count = self.reached(progress, num_examples=num_examples, ends=ends)
        return min(num_examples, max(count, batch_size))

    def ranking(self, difficulty: np.ndarray, *, seed: int) -> np.ndarray:
        """Indices in the order they become visible, (examples,); NaN last.

        Ties are broken by a keyed permutation: by index, data sorted by class would show one class first.
        """
        if self.order == "random":
            return generator(seed, "curriculum").permutation(len(difficulty))
        values = np.asarray(difficulty, dtype=np.float64)
        unknown = np.isnan(values)
        values = -values if self.order == "hard_first" else values
        ties = generator(seed, "curriculum", "ties").permutation(len(values))
        return np.lexsort((ties, np.where(unknown, 0, values), unknown))

    def course(self, difficulty: np.ndarray, *, seed: int, batch_size: int) -> Course:
        """What it shows of examples as difficult as these, (examples,)."""
        return Course(self, self.ranking(difficulty, seed=seed), self.ends(difficulty), batch_size)

    def ends(self, difficulty: np.ndarray) -> np.ndarray | None:
        """As ``Course`` has them, of examples as difficult as these; None where they need not come together.

        The control arm has those of easy first, so that it shows as many examples at each step.
        """
        if self.pacing != "competence":
            return None
        values = np.asarray(difficulty, dtype=np.float64)
        _, counts = np.unique(-values if self.order == "hard_first" else values, return_counts=True)
        return np.cumsum(counts)


class Course(NamedTuple):
    """A curriculum over the examples of one training split."""

    curriculum: Curriculum
    ranking: np.ndarray  # (examples,): indices in the order they become visible
    ends: np.ndarray | None  # how many examples are as difficult or less, for each difficulty there is, ascending
    batch_size: int

    def visible(self, progress: Progress) -> np.ndarray:
        """The indices that may be drawn now."""
        count = self.curriculum.num_visible(
            progress, num_examples=len(self.ranking), batch_size=self.batch_size, ends=self.ends
        )
        return self.ranking[:count]
