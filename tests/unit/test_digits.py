from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from finetune.data.digits import few_shot, image_of
from finetune.errors import DataError


def pixels(images):
    return [np.asarray(image).tobytes() for image in images]


@pytest.fixture(scope="module")
def splits():
    return few_shot(per_class=20, validation_per_class=30)


def test_train_and_validation_are_balanced_and_test_is_the_rest(splits):
    sizes = {name: len(split["label"]) for name, split in splits.items()}
    assert sizes == {"train": 200, "validation": 300, "test": 1797 - 500}
    for name, size in (("train", 20), ("validation", 30)):
        assert [splits[name]["label"].count(str(digit)) for digit in range(10)] == [size] * 10


def test_no_image_stands_in_two_splits(splits):
    every = [each for split in splits.values() for each in pixels(split["image"])]
    assert len(set(every)) == len(every) == 1797


def test_images_carry_their_own_labels(splits):
    bunch = load_digits()
    labels = {
        np.asarray(image_of(levels)).tobytes(): str(label)
        for levels, label in zip(bunch.images, bunch.target, strict=True)
    }
    for split in splits.values():
        assert [labels[each] for each in pixels(split["image"])] == split["label"]


def test_an_image_is_16_by_16_rgb_with_the_full_range_of_ink(splits):
    image = splits["train"]["image"][0]
    assert (image.size, image.mode) == ((16, 16), "RGB")
    black_to_white = np.repeat([[0, 16]], 4, axis=1).repeat(8, axis=0)
    enlarged = np.asarray(image_of(black_to_white))
    assert enlarged[0, 0].tolist() == [0, 0, 0]
    assert enlarged[-1, -1].tolist() == [255, 255, 255]


def test_held_out_images_do_not_move_with_the_size_of_the_training_split(splits):
    small = few_shot(per_class=5, validation_per_class=30)
    assert pixels(small["validation"]["image"]) == pixels(splits["validation"]["image"])
    assert set(pixels(small["train"]["image"])) < set(pixels(splits["train"]["image"]))


def test_a_seed_is_a_split(splits):
    again, other = few_shot(per_class=20, validation_per_class=30), few_shot(seed=1)
    assert pixels(again["train"]["image"]) == pixels(splits["train"]["image"])
    assert pixels(other["train"]["image"]) != pixels(splits["train"]["image"])


def test_more_than_there_are_is_refused():
    with pytest.raises(DataError, match="leave none of the 17. for the test split"):
        few_shot(per_class=160)
