from __future__ import annotations

import time

from finetune.tracking import Bar


def test_a_bar_is_told_a_few_times_a_second_and_of_the_end(monkeypatch):
    """Telling it costs more than a tiny model's forward."""
    bar = Bar(1000, start=0)
    told = []
    monkeypatch.setattr(bar._progress, "update", lambda task, **fields: told.append(fields["completed"]))
    began = time.monotonic()
    for step in range(1, 1001):
        bar.update(step, loss=1.0, lr=1e-5)
    assert told[0] == 1 and told[-1] == 1000
    assert len(told) <= 2 + 4 * (time.monotonic() - began + 0.25)
