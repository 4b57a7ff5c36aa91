"""What a row is: the work, who does it, and what must come out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .clock import Clock
    from .workloads import Workload

Run = Callable[["Work", "Workload", "Clock"], "dict[str, float] | None"]
OURS = "finetune"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every contender of a row does: model, data, updates.

    Args:
        shape: A name of ``shapes.SHAPES``.
        lengths: A set of ``token_lengths.json``, or a number: every text has so many tokens; images ignore it.
        max_length: Tokens after which a text is cut.
        batch_size: Examples per update.
        warmup_steps: Updates before the clock starts.
        timed_steps: Updates between start and stop of the clock; 0: a whole run of ``epochs`` is timed.
        examples: Of the training split, for whole runs; else it follows from the updates.
        validation: Examples of the validation split.
        epochs: Of a whole run, for each stage.
        evaluates: Whether a whole run evaluates after every epoch.
        stages: Blocks that train under the head, from the top, stage after stage; empty: everything, always.
        lora_rank: 0: no adapters.
        precision: ``fp32`` or ``bf16``.
        saves_every: Updates between two checkpoints; 0: none in the timed region.
    """

    shape: str
    lengths: str = "sst2"
    max_length: int = 128
    batch_size: int = 32
    warmup_steps: int = 2
    timed_steps: int = 0
    examples: int = 0
    validation: int = 32
    epochs: int = 1
    evaluates: bool = False
    stages: tuple[int, ...] = ()
    lora_rank: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    saves_every: int = 0

    @property
    def num_examples(self) -> int:
        """Of the training split: one epoch holds all updates where a window is timed, and one more to end it."""
        return self.examples or (self.warmup_steps + self.timed_steps + 1) * self.batch_size

    @property
    def total_epochs(self) -> int:
        """Of a whole run, all stages together."""
        return self.epochs * max(1, len(self.stages))

    @property
    def steps_per_epoch(self) -> int:
        """Updates."""
        return -(-self.num_examples // self.batch_size)

    def warmup(self) -> Work:
        """One batch of the same."""
        few = min(self.validation, self.batch_size)
        return replace(self, examples=self.batch_size, validation=few, epochs=1, stages=self.stages[:1])

    def digest(self) -> str:
        """Names the work: rounds of another work are never mixed in."""
        return hashlib.blake2b(json.dumps(asdict(self), sort_keys=True).encode(), digest_size=6).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to do the work of a row, in a process of its own.

    Args:
        name: As the table shows it.
        run: Does the work; what it returns is added to what the clock saw.
        needs: A package that may be absent: then the contender is skipped, and the table says so.
        quick: Runs with ``--quick`` too.
        work: Where it does other work than the row's (twice the examples).
        warms_up: Runs over one batch first, so that no import and no first call of a kernel is in the time; what
            times a window of updates warms up by itself.
    """

    name: str
    run: Run
    needs: str = ""
    quick: bool = False
    work: Work | None = None
    warms_up: bool = False


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a row must reach.

    Args:
        against: The contender compared with; ours itself for a bound on our own value.
        kind: ``times`` (the peer's value is at least so many times ours), ``share`` (ours is at most this share of
            the peer's), ``most`` or ``least`` (ours is at most, or at least, this).
        must: To count as reached.
        aim: What the row aims at; None: nothing beyond ``must``.
    """

    against: str
    kind: Literal["times", "share", "most", "least"]
    must: float
    aim: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table.

    Args:
        name: On the command line.
        title: In the table.
        work: Of all contenders.
        contenders: Ours first.
        targets: What must come out.
        value: The key of a result that is compared: less is better, but for ``least``.
        unit: Of the value.
        gate: Whether 20 updates must equal those of a plain loop.
        takes_from: The row whose rounds this one reads another value from; it has no contenders of its own.
        needs_cuda: Skipped, with the reason, where there is no CUDA device.
        quick: Runs with ``--quick`` too.
        default: Runs when no row is named.
        rounds: At most so many, for what does not vary; 0: as asked for.
        note: What a reader must know.
        bound: What bounds the row where it is missed: the arithmetic, and what was tried.
    """

    name: str
    title: str
    work: Work
    contenders: tuple[Contender, ...] = ()
    targets: tuple[Target, ...] = ()
    value: str = "seconds"
    unit: str = "s"
    gate: bool = False
    takes_from: str = ""
    needs_cuda: bool = False
    quick: bool = False
    default: bool = True
    rounds: int = 0
    note: str = ""
    bound: str = ""

    def contender(self, name: str) -> Contender:
        """By name."""
        return next(each for each in self.contenders if each.name == name)


Result = dict[str, Any]  # what one contender measured in one round: numbers by key
