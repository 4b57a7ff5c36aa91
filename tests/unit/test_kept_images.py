from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from finetune.cached_arrays import ArrayCache, CacheUnavailable
from finetune.data.image_store import ImageStore
from finetune.data.pixels import Pixels, finished, pixels_of_processor, pixels_of_timm
from finetune.data.sources import read
from finetune.data.spec import Data
from finetune.data.store import Draw, moved
from finetune.errors import DataError
from tests.tiny_data import write_images

PLAIN = [Draw(0, 0, index) for index in (3, 1, 3, 5)]
SEEDED = [Draw(0, 0, 3, 11), Draw(0, 0, 1, 12), Draw(7, 1, 3, 13), Draw(8, 1, 5)]  # the last as it is


def of_processor(kind: str = "ViTImageProcessor", **options) -> Pixels:
    return pixels_of_processor(getattr(transformers, kind)(**options), source="tiny")


def of_timm(**options) -> Pixels:
    config = {"input_size": (3, 16, 16), "mean": (0.4, 0.5, 0.6), "std": (0.3, 0.2, 0.1), "interpolation": "bicubic"}
    return pixels_of_timm(config | {"crop_pct": 0.8, "crop_mode": "center"} | options, source="tiny")


SQUARE = {"height": 16, "width": 16}
PIXELS = {
    "vit": lambda: of_processor(size=SQUARE),
    "cropped": lambda: of_processor("BitImageProcessor", size={"shortest_edge": 20}, crop_size=SQUARE),
    "timm": of_timm,
    "timm squash": lambda: of_timm(crop_mode="squash", interpolation="bilinear"),
}


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "images", per_class=2, size=(40, 24))


def store_of(folder, pixels: Pixels, augment: str = "none") -> ImageStore:
    table = read(Data(train=str(folder)), "train", task="image_classification")
    return ImageStore(table, pixels, augment=augment)


def cache_in(tmp_path, max_bytes: int = 10**8) -> ArrayCache:
    return ArrayCache(tmp_path / "cache", max_bytes=max_bytes)


@pytest.mark.parametrize("kind", PIXELS)
def test_a_batch_of_bytes_is_bit_for_bit_what_the_library_makes_of_each_image(folder, kind):
    pixels = PIXELS[kind]()
    assert pixels.is_split
    store = store_of(folder, pixels)
    own = torch.stack([pixels.whole(store.table.image(draw.index)) for draw in PLAIN])
    assert torch.equal(store.batch(PLAIN)["pixel_values"], own)
    white = Image.new("RGB", (16, 16), (255, 0, 128))
    assert torch.equal(pixels.scaled(np.asarray(white).transpose(2, 0, 1)[None])[0], pixels.view(white))


def test_a_processor_that_resizes_floats_is_asked_for_each_image(folder, tmp_path):
    pixels = of_processor("DINOv3ViTImageProcessor", size=SQUARE)
    store = store_of(folder, pixels)
    assert not pixels.is_split
    own = torch.stack([pixels.whole(store.table.image(draw.index)) for draw in PLAIN])
    assert torch.equal(store.batch(PLAIN)["pixel_values"], own)
    kept = store_of(folder, pixels, "light")
    expected = kept.batch(SEEDED)["pixel_values"]
    found = replace(kept, kept=kept.keeping().make(cache_in(tmp_path))).batch(SEEDED)["pixel_values"]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", PIXELS)
@pytest.mark.parametrize("augment", ["none", "light", "standard"])
def test_kept_images_give_the_same_bits_and_are_decoded_no_more(folder, tmp_path, kind, augment):
    store = store_of(folder, PIXELS[kind](), augment)
    draws = PLAIN if augment == "none" else SEEDED
    expected = store.batch(draws)
    assert store.varies == (augment != "none")
    store = replace(store, kept=store.keeping().make(cache_in(tmp_path)))
    shutil.rmtree(folder)
    found = store.batch(draws)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_images_left_as_bytes_are_scaled_where_they_go(folder):
    store = store_of(folder, of_timm())
    expected, bytes_of_it = store.batch(PLAIN), store.leaving_bytes.batch(PLAIN)
    assert bytes_of_it["pixel_values"].dtype == torch.uint8
    there = moved(bytes_of_it, torch.device("cpu"))
    assert there.keys() == expected.keys()
    assert torch.equal(there["pixel_values"], expected["pixel_values"])
    assert finished(expected) is expected
    floats = store_of(folder, of_processor("DINOv3ViTImageProcessor", size=SQUARE))
    assert torch.equal(floats.leaving_bytes.batch(PLAIN)["pixel_values"], floats.batch(PLAIN)["pixel_values"])


def test_pictures_made_smaller_serve_views_only(folder, tmp_path):
    shutil.rmtree(folder / "green")
    wide = np.random.default_rng(0).integers(0, 256, (60, 200, 3), dtype=np.uint8)
    Image.fromarray(wide).save(folder / "blue" / "000.png")
    store = store_of(folder, of_timm(), "light")
    kept = store.keeping(is_resized=True).make(cache_in(tmp_path))
    assert kept[0].shape == (18, 60, 3) and kept[1].shape == (18, 30, 3)
    small = replace(store, kept=kept)
    draws = [Draw(0, 0, 0, 5), Draw(0, 0, 0)]
    views, exact = small.batch(draws)["pixel_values"], store.batch(draws)["pixel_values"]
    assert not torch.equal(views[0], exact[0]) and torch.equal(views[1], exact[1])
    assert store.keeping().key != store.keeping(is_resized=True).key


def test_an_entry_is_found_again_and_by_nobody_else(folder, tmp_path):
    cache, store = cache_in(tmp_path), store_of(folder, of_timm())
    keeping = store.keeping()
    assert keeping.find(cache) is None
    made = keeping.make(cache)
    assert np.array_equal(store_of(folder, of_timm()).keeping().find(cache).bytes, made.bytes)
    others = [of_timm(crop_pct=1.0), of_timm(interpolation="bilinear"), of_processor(size={"height": 8, "width": 8})]
    stores = [store_of(folder, pixels) for pixels in others] + [store_of(folder, of_timm(), "light")]
    keys = {other.keeping().key for other in stores}
    assert len(keys) == 4 and keeping.key not in keys
    assert store_of(folder, of_timm(mean=(0, 0, 0))).keeping().key == keeping.key  # scaling is not in the bytes
    os.utime(folder / "blue" / "000.png", ns=(1, 1))
    assert store.keeping().key != keeping.key and store.keeping().find(cache) is None


def test_pictures_that_lie_on_their_side_are_kept_upright(tmp_path):
    folder = write_images(tmp_path / "images", per_class=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    noise = np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "red" / "000.png", exif=exif)
    store = store_of(folder, of_timm(), "light")
    kept = store.keeping().make(cache_in(tmp_path))
    assert kept[2].shape == (50, 20, 3)
    draw = [Draw(0, 0, 2, 9)]
    assert torch.equal(replace(store, kept=kept).batch(draw)["pixel_values"], store.batch(draw)["pixel_values"])


def test_an_image_that_broke_is_named_and_nothing_is_kept(folder, tmp_path):
    store, cache = store_of(folder, of_timm()), cache_in(tmp_path)
    broken = folder / "green" / "001.png"
    broken.write_bytes(broken.read_bytes()[:-200])
    with pytest.raises(DataError, match="green/001.png"):
        store.keeping().make(cache)
    assert not list((cache.folder / "entries").iterdir()) and not list((cache.folder / "drafts").iterdir())


def test_what_does_not_fit_is_refused_and_a_run_that_stops_keeps_nothing(folder, tmp_path):
    store = store_of(folder, of_timm(), "light")
    size = 6 * 40 * 24 * 3
    assert store.keeping().estimate() == size and store_of(folder, of_timm()).keeping().estimate() == 6 * 16 * 16 * 3
    with pytest.raises(CacheUnavailable, match="budget"):
        store.keeping().make(cache_in(tmp_path, size - 1))
    cache = cache_in(tmp_path)
    assert store.keeping().make(cache, is_stopping=lambda: True) is None
    assert not list((cache.folder / "entries").iterdir())


def test_pictures_inside_a_table_are_told_by_all_their_bytes(tmp_path):
    from datasets import Dataset, Features, Value

    def stored(tail: int):
        pixels = np.full((60, 60, 3), 7, np.uint8)
        pixels[30, 30] = tail  # far from both ends of the file
        Image.fromarray(pixels).save(tmp_path / "one.bmp")
        data = (tmp_path / "one.bmp").read_bytes()
        rows = {"image": [{"bytes": data, "path": None}] * 3, "label": ["a", "b", "a"]}
        kind = Features({"image": {"bytes": Value("binary"), "path": Value("string")}, "label": Value("string")})
        place = tmp_path / f"{tail}.parquet"
        Dataset.from_dict(rows, features=kind).to_parquet(place)
        table = read(Data(train=str(place), image="image", label="label"), "train", task="image_classification")
        return ImageStore(table, of_timm())

    one, other = stored(1), stored(2)
    assert one.fingerprint == other.fingerprint  # which looks at the ends
    assert one.keeping().key != other.keeping().key


def test_a_picture_that_changed_while_it_was_kept_is_refused(folder, tmp_path):
    store = store_of(folder, of_timm(), "light")

    class Changed(list):
        """Gives an image twice (for the key and for its size), and from then on another."""

        asked = 0

        def __getitem__(self, index):
            self.asked += 1
            return Image.new("RGB", (20, 20 if self.asked <= 2 * len(self) else 30))

    rows = replace(store.table.rows, columns={**store.table.rows.columns, "image": Changed(range(6))})
    keeping = replace(store, table=replace(store.table, rows=rows, image_column="image")).keeping()
    assert keeping.key
    cache = cache_in(tmp_path)
    with pytest.raises(CacheUnavailable, match="another size than its header says"):
        keeping.make(cache)
    assert not list((cache.folder / "drafts").iterdir())
