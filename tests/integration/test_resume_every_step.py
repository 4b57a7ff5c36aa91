"""Invariant 4 over a run of 40 updates: from the checkpoint of every step it ends bit for bit where it would have."""

from __future__ import annotations

import random
import shutil

import pytest

from finetune.errors import PreemptedError
from tests.resume_rows import ROWS, best, kept, left, returned, whole
from tests.runs import run

# Each kind once; all rows are in the drill.
FEW = (
    "bert-full vit-gradual_unfreeze bert-lora curriculum-length curriculum-loss augmented-2-workers bf16 fp16-skips "
    "3-ragged-cuts-bucketed-unfreeze early-stopping-best-2 plateau unfreeze-on-plateau"
).split()


class Undisturbed:
    """A run that nothing stopped, and what must be so of the same run when something did."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.run, self.result = whole(ROWS[name], folder)
        assert ROWS[name].shows(self.result), "the run is not the one that it is named for"
        self.came_to = returned(self.result), left(self.run.folder)
        self.last = self.result.state.step
        self.evaluations = [step for step, _ in self.result.state.evaluations[:-1]]
        self.boundaries = sorted({phase["from"] for phase in self.result.plan["phases"]} - {0})

    def drawn(self, steps, count):
        return random.Random(self.name).sample(steps, count)

    def check_kills(self, steps):
        for step in sorted({*steps}):
            self._check(self.run.after(step, self.folder / "killed"), f"killed after step {step}")

    def check_stops(self, steps):
        """As a signal does it: what is due after that update is left to the resumed run."""
        for step in sorted({*steps}):
            with pytest.raises(PreemptedError):
                run(self.run.task, output_dir=str(self.folder / "stopped"), stop_at=step, **self.run.settings)
            self._check(self.folder / "stopped", f"stopped after step {step}")

    def _check(self, folder, what):
        resumed = self.run.resumed(folder)
        assert (returned(resumed), left(folder)) == self.came_to, what
        best_kept = self.run.settings["checkpoint"].keep_best
        assert kept(folder) == {*best(self.result, best_kept), self.last}, what
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", FEW)
def test_from_drawn_steps_it_ends_as_undisturbed(tmp_path, name):
    undisturbed = Undisturbed(name, tmp_path)
    undisturbed.check_kills([*undisturbed.drawn(range(1, undisturbed.last), 1), *undisturbed.boundaries[-1:]])
    undisturbed.check_stops(undisturbed.drawn(undisturbed.evaluations, 1))


@pytest.mark.drill
@pytest.mark.parametrize("name", ROWS)
def test_from_every_step_it_ends_as_undisturbed(tmp_path, name):
    """From before the first save, too, and from the last one, after which only the end is missing."""
    undisturbed = Undisturbed(name, tmp_path)
    undisturbed.check_kills(range(undisturbed.last + 1))
    drawn = [*undisturbed.drawn(undisturbed.evaluations, 1), *undisturbed.drawn(range(1, undisturbed.last), 2)]
    undisturbed.check_stops([*drawn, *undisturbed.boundaries[:1]])
