"""A run of ours that says when its first update is done: MODEL TRAIN.csv VALIDATION.csv BATCH_SIZE."""

from __future__ import annotations

import sys
import time

from finetune import AdamW, TextClassification, fit


class FirstUpdate:
    """The task, saying when the second update begins."""

    def __init__(self, task):
        self._task, self._is_told = task, False

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._task, name)

    def load_model(self):
        """As the task does."""
        return self._task.load_model()

    def splits(self):
        """As the task does."""
        return self._task.splits()

    def load_split(self, name):
        """As the task does."""
        return self._task.load_split(name)

    def score(self, predictions):
        """As the task does."""
        return self._task.score(predictions)

    def forward(self, model, batch, progress):
        """As the task does."""
        if progress.step == 1 and not self._is_told:
            self._is_told = True
            print("first step done at", time.time(), flush=True)
        return self._task.forward(model, batch, progress)


if __name__ == "__main__":
    model, train, validation, batch_size = sys.argv[1:]
    data = {"train": train, "validation": validation, "text": "text", "label": "label"}
    task = TextClassification(model=model, data=data, metrics=("accuracy",))
    fit(FirstUpdate(task), optimizer=AdamW(lr=2e-5), length="2 steps", batch_size=int(batch_size), show="nothing")
