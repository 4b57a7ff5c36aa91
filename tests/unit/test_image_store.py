from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.data.augment import random_view
from finetune.data.image_store import ImageStore
from finetune.data.pixels import Pixels, pixels_of_processor, pixels_of_timm
from finetune.data.sources import read
from finetune.data.spec import Data
from finetune.data.store import Draw
from finetune.errors import ConfigError, DataError
from finetune.randomness import generator
from tests.tiny_data import write_images

SIZE = (40, 24)  # of the files, width and height: not square, and not what the model takes


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    from transformers import ViTImageProcessor

    return pixels_of_processor(ViTImageProcessor(size={"height": 16, "width": 16}), source="tiny")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = write_images(tmp_path_factory.mktemp("images"), per_class=2, size=SIZE)
    return read(Data(train=str(folder)), "train", task="image_classification")


def draws(*keys: tuple[int, ...]) -> list[Draw]:
    return [Draw(*key) for key in keys]


FOUR = draws((0, 0, 3, 11), (0, 0, 1, 12), (7, 1, 3, 13), (8, 1, 5, 14))  # the last number is the seed


def test_without_augmentation_it_is_what_the_models_own_processor_gives(table, pixels):
    from transformers import ViTImageProcessor

    batch = ImageStore(table, pixels).batch(FOUR)
    images = [table.image(draw.index) for draw in FOUR]
    own = ViTImageProcessor(size={"height": 16, "width": 16})(images=images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(batch["pixel_values"], own)
    assert batch["pixel_values"].shape == (4, 3, 16, 16) and batch["pixel_values"].dtype == torch.float32
    assert batch["index"].tolist() == [3, 1, 3, 5] and batch["labels"].tolist() == [1, 0, 1, 2]


def test_timm_models_get_what_timm_gives(table):
    from timm.data import create_transform

    config = {"input_size": (3, 16, 16), "mean": (0.4,) * 3, "std": (0.3,) * 3, "interpolation": "bicubic"}
    config |= {"crop_pct": 0.8, "crop_mode": "center"}
    pixels = pixels_of_timm(config, source="tiny")
    batch = ImageStore(table, pixels).batch(draws((0, 0, 0)))
    assert torch.equal(batch["pixel_values"][0], create_transform(**config, is_training=False)(table.image(0)))
    assert pixels.size == (16, 16) and pixels.resample == Image.Resampling.BICUBIC
    white = pixels.view(Image.new("RGB", (16, 16), (255, 255, 255)))
    torch.testing.assert_close(white, torch.full((3, 16, 16), 2.0))  # (1 - 0.4) / 0.3


def test_a_view_is_scaled_but_not_resized_again():
    from transformers import BitImageProcessor

    scale = {"image_mean": [0.4] * 3, "image_std": [0.3] * 3}
    own = BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 16, "width": 16}, **scale)
    pixels = pixels_of_processor(own, source="tiny")
    ramp = np.repeat(np.tile(np.arange(0, 256, 16, dtype=np.uint8), (16, 1))[..., None], 3, axis=2)
    expected = (torch.from_numpy(ramp).permute(2, 0, 1) / 255 - 0.4) / 0.3
    torch.testing.assert_close(pixels.view(Image.fromarray(ramp)), expected)
    assert pixels.size == (16, 16)


@pytest.mark.parametrize("augment", ["light", "standard"])
def test_a_view_depends_on_its_draw_alone(table, pixels, augment):
    store = ImageStore(table, pixels, augment=augment)
    together = store.batch(FOUR)["pixel_values"]
    np.random.seed(1)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for number in (2, 0, 3, 1):
        assert torch.equal(store.batch(FOUR[number : number + 1])["pixel_values"][0], together[number])
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.random() == np.random.RandomState(1).random_sample()


def test_another_seed_is_another_view(table, pixels):
    store = ImageStore(table, pixels, augment="light")
    views = store.batch([Draw(0, 0, 3, seed) for seed in range(10)])["pixel_values"]
    assert len({view.numpy().tobytes() for view in views}) >= 8  # a small image has few different crops


def test_loader_workers_draw_the_same_views(table, pixels):
    store = ImageStore(table, pixels, augment="standard")

    class Batches(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, number: int) -> dict:
            return store.batch([FOUR[number]])

    for workers in (0, 2):
        loaded = torch.utils.data.DataLoader(Batches(), batch_size=None, num_workers=workers)
        for draw, batch in zip(FOUR, loaded, strict=True):
            assert torch.equal(batch["pixel_values"], store.batch([draw])["pixel_values"])


def test_light_views_keep_most_of_the_picture_and_mirror_half_of_the_time():
    ramp = np.linspace(0, 255, 64).round().astype(np.uint8)
    image = Image.fromarray(np.repeat(np.tile(ramp, (64, 1))[..., None], 3, axis=2))
    mirrored, spans = 0, []
    for number in range(200):
        view = random_view(
            image, augment="light", rng=generator(0, "test", number), size=(16, 16), resample=Image.Resampling.NEAREST
        )
        row = np.asarray(view)[0, :, 0].astype(int)
        mirrored += row[0] > row[-1]
        spans.append(abs(row[-1] - row[0]) / 255)
    assert 75 <= mirrored <= 125
    # The width of a crop is sqrt(area * aspect) with both at least 0.7 and 3/4; a sixteenth is lost to sampling.
    assert min(spans) > (0.7 * 3 / 4) ** 0.5 - 0.1 and max(spans) > 0.85


def test_standard_views_change_colours_and_light_ones_do_not():
    grey = Image.new("RGB", (20, 20), (120, 90, 60))
    options = {"size": (8, 8), "resample": Image.Resampling.BILINEAR}
    light = random_view(grey, augment="light", rng=generator(0, "test"), **options)
    standard = random_view(grey, augment="standard", rng=generator(0, "test"), **options)
    assert (np.asarray(light) == (120, 90, 60)).all() and (np.asarray(standard) != (120, 90, 60)).any()


def test_views_of_a_wide_image_come_from_all_of_it():
    ramp = np.tile(np.linspace(0, 255, 96).round().astype(np.uint8), (24, 1))
    image = Image.fromarray(np.repeat(ramp[..., None], 3, axis=2))
    options = {"augment": "light", "size": (8, 8), "resample": Image.Resampling.BILINEAR}
    means = [np.asarray(random_view(image, rng=generator(0, "test", n), **options)).mean() for n in range(40)]
    assert min(means) < 90 and max(means) > 165 and len(set(means)) > 30


@pytest.mark.parametrize("size", [(1, 1), (200, 2), (2, 200)])
def test_extreme_shapes_still_give_a_view(size):
    image = Image.new("RGB", size, (9, 9, 9))
    for number in range(20):
        view = random_view(image, augment="light", rng=generator(0, "test", number), size=(8, 4), resample=2)
        assert view.size == (4, 8)


def test_a_processor_that_keeps_shapes_is_refused_with_what_to_set():
    from transformers import BitImageProcessor

    processor = BitImageProcessor(size={"shortest_edge": 16}, do_center_crop=False)
    with pytest.raises(ConfigError, match="some/model keeps the shape.*task.image_size"):
        pixels_of_processor(processor, source="some/model")


def test_the_rest_of_a_store(table, pixels):
    store = ImageStore(table, pixels)
    assert len(store) == 6 and store.lengths.tolist() == [1] * 6 and store.lengths.dtype == np.int32
    assert store.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert store.where(2).endswith("green/000.png")
    empty = store.batch([])
    assert empty["pixel_values"].shape == (0, 3, 16, 16) and empty["labels"].shape == (0,)


def test_an_image_that_breaks_later_is_named(tmp_path, pixels):
    folder = write_images(tmp_path / "images", per_class=2)
    table = read(Data(train=str(folder)), "train", task="image_classification")
    broken = folder / "green" / "001.png"
    broken.write_bytes(broken.read_bytes()[:-200])
    with pytest.raises(DataError, match="green/001.png"):
        ImageStore(table, pixels).batch(draws((0, 0, 3)))
