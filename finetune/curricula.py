"""Curricula: difficulty x pacing x order decides which examples may be drawn at a step."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le

from .durations import Duration, DurationText
from .progress import Progress
from .randomness import generator


@dataclass(frozen=True)
class Curriculum:
    """Shows a growing share of the examples, the easiest (or hardest) first (Platanios et al. 2019).

    On clean standard data a curriculum rarely beats random order at equal pacing (Wu et al. 2021); run
    ``order: random`` beside it, which shows as many examples at each step but ranks them by chance.

    Args:
        difficulty: ``length``; ``loss`` (of the starting model, measured once before training); or a
            numeric column of the training data.
        pacing: Share visible at t, for start s and duration T, with x = min(1, t/T): ``linear`` s + (1-s)x;
            ``root`` sqrt(s^2 + (1-s^2)x), the paper's best (section 3.2); ``step`` linear, in ``stages`` stairs.
        order: ``easy_first``, ``hard_first`` or ``random`` (the control).
        start: Share visible at step 0.
        until: When all examples are visible; a percentage is of the run.
        stages: Stairs of pacing ``step``: T is cut into so many equal parts, and the share is held in each.
    """

    difficulty: str = "length"
    pacing: Literal["linear", "root", "step"] = "root"
    order: Literal["easy_first", "hard_first", "random"] = "easy_first"
    start: Annotated[float, Gt(0), Le(1)] = 0.3
    until: DurationText = "50%"
    stages: Annotated[int, Ge(2)] = 5

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        Duration.parse(self.until)
        if not 0 < self.start <= 1:
            raise ValueError(f"start is the share visible at step 0, above 0 and at most 1; got {self.start}")
        if self.stages != 5 and self.pacing != "step":
            raise ValueError(f"stages: {self.stages} has no effect with pacing {self.pacing!r}; set pacing: step")

    def share(self, progress: Progress) -> float:
        """The share of examples that may be drawn, in (0, 1]."""
        until = progress.steps(self.until)
        through = min(1.0, progress.step / until) if until else 1.0
        if self.pacing == "root":
            return math.sqrt(self.start**2 + (1 - self.start**2) * through)
        if self.pacing == "step":
            through = math.floor(through * self.stages) / self.stages
        return self.start + (1 - self.start) * through

    def num_visible(self, progress: Progress, *, num_examples: int, batch_size: int) -> int:
        """How many examples may be drawn: at least one update's worth."""
        count = math.ceil(self.share(progress) * num_examples - 1e-9)
        return min(num_examples, max(count, batch_size))

    def ranking(self, difficulty: np.ndarray, *, seed: int) -> np.ndarray:
        """Indices in the order they become visible, (examples,); NaN last with a warning.

        Ties are broken by a keyed permutation: by index, data sorted by class would show one class first.
        """
        if self.order == "random":
            return generator(seed, "curriculum").permutation(len(difficulty))
        values = np.asarray(difficulty, dtype=np.float64)
        unknown = np.isnan(values)
        if unknown.any():
            text = (
                f"curriculum: {unknown.sum()} of {len(values)} examples have no {self.difficulty}; they are shown last"
            )
            warnings.warn(text, stacklevel=2)
        values = -values if self.order == "hard_first" else values
        ties = generator(seed, "curriculum", "ties").permutation(len(values))
        return np.lexsort((ties, np.where(unknown, 0, values), unknown))
