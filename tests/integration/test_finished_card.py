"""What the card in ``model/`` says of the run that wrote it."""

import dataclasses

from ..runs import replaced, run, text_task
from ..tiny_data import write_texts


def test_it_says_what_ran_and_on_how_many_examples(tmp_path):
    run(text_task(tmp_path), length="4 steps", output_dir=str(tmp_path / "run"))
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "| optimizer | adamw (lr 1e-2, weight_decay 0.01, " in card
    assert "head: steps 0 to 3 at LR up to 1.00e-02" in card
    assert "| validation | 21 |" in card


def test_every_split_that_was_scored_has_its_size(tmp_path):
    task = text_task(tmp_path)
    write_texts(tmp_path / "test.csv", 5, seed=2)
    task = replaced(task, data=dataclasses.replace(task.data, test=str(tmp_path / "test.csv")))
    run(task, length="2 steps", output_dir=str(tmp_path / "run"))
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "| test | 5 |" in card and "5 test examples." in card
