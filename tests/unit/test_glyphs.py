from __future__ import annotations

import pytest
import torch

from finetune.data.glyphs import FACES, _font_folder, _letters, classes, draw

# Only who pre-trains the small ViT anew draws letters; that needs more of matplotlib than the package does.
pytest.importorskip("matplotlib", minversion="3.11", reason="matplotlib before 3.11 bundles no cmti10")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_classes_hold_every_letter_once_and_no_digit():
    assert sorted("".join(classes())) == sorted("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    assert len(classes()) == 40


def test_every_face_is_bundled_and_draws_every_letter_differently():
    assert all((_font_folder() / f"{face}.ttf").is_file() for face in FACES)
    images, labels = _letters()
    assert len(images) == len(labels) == 21 * 52
    assert images.flatten(1).max(dim=1).values.min() > 100  # none is blank
    of_first_face = images[:52].flatten(1)
    assert len(torch.unique(of_first_face, dim=0)) == 52  # not the box that stands for a missing letter


def test_letters_are_drawn_on_the_grid_of_the_digits():
    levels, labels = draw(256, seed=0)
    assert levels.shape == (256, 8, 8)
    assert levels.min() == 0 and levels.max() == 16
    assert torch.equal(levels, levels.round())
    assert labels.min() >= 0 and labels.max() < len(classes())
    assert 4 < levels.mean() < 6  # ink of the digits: 4.9
    assert (levels[:, 0].sum(dim=1) > 0).float().mean() > 0.9  # from the first row to the last, as the digits


def test_a_draw_is_its_seed_and_batch():
    first, again = draw(16, seed=1, batch=2), draw(16, seed=1, batch=2)
    assert torch.equal(first.levels, again.levels) and torch.equal(first.labels, again.labels)
    assert not torch.equal(first.levels, draw(16, seed=1, batch=3).levels)
    assert not torch.equal(first.levels, draw(16, seed=2, batch=2).levels)


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draw(4, seed=0)
    assert torch.equal(before, torch.get_rng_state())
