from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow

from finetune.data.sources import read
from finetune.data.spec import Data
from finetune.errors import DataError


def picture(color=(255, 0, 0), size=(20, 10)):
    return Pillow.new("RGB", size, color)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture((number, 0, 0)).save(path)
    return tmp_path / "photos"


def photos(split="train", **fields):
    return read(Data(**{"train": "photos", **fields}), split, task="image_classification")


def noise(size):
    return Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))


def header_of(width, height):
    """A PNG that says how large it is and holds no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_an_image_folder(folder):
    (folder / "dog" / ".DS_Store").write_bytes(b"x")
    (folder / "README.md").write_text("about")
    table = photos()
    assert table.label_names == ("cat", "dog") and table.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert table.where(1) == "photos/cat/2.png"
    assert table.image(1).getpixel((0, 0)) == (2, 0, 0)


BROKEN = {
    "truncated.jpg": (encoded(noise((60, 60)), "JPEG")[:2000], "is truncated"),
    "truncated.png": (encoded(noise((60, 60)), "PNG")[:2000], "is truncated"),
    "truncated.webp": (encoded(noise((60, 60)), "WEBP", lossless=True)[:2000], "is (broken|truncated|not a picture)"),
    "truncated.bmp": (encoded(noise((60, 60)), "BMP")[:2000], "is truncated"),
    "text.jpg": (b"this is no picture", "is not a picture that can be read"),
    "empty.png": (b"", r"is empty \(zero bytes\)"),
    "bomb.png": (header_of(20_000, 20_000), "million"),
    "large.png": (header_of(8_000, 7_000), "8000 x 7000 pixels, at most 50 million"),
    "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture"),
    "float.tif": (encoded(Pillow.new("F", (4, 4)), "TIFF"), "32-bit float"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_named_before_training(folder, name):
    content, words = BROKEN[name]
    (folder / "dog" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"^photos/dog/{name}: .*{words}.*Fix the row"):
        photos()


@pytest.mark.filterwarnings("error")
def test_a_stray_broken_picture_can_be_skipped(folder):
    for number in range(100, 200):
        picture((number, 0, 0)).save(folder / "cat" / f"{number}.bmp")
    (folder / "dog" / "a.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match="left out 1 of 107 rows"):
        assert len(photos(bad_rows="skip")) == 106


def test_a_picture_that_breaks_later_is_named_when_it_is_decoded(folder):
    content = bytearray(encoded(noise((60, 60)), "PNG"))
    content[3000:3200] = bytes(200)
    (folder / "dog" / "9.png").write_bytes(content)
    table = photos()
    with pytest.raises(DataError, match="^photos/dog/9.png: .*Replace or remove"):
        table.image(6)


def test_links_out_of_the_folder_are_refused(folder, tmp_path):
    picture().save(tmp_path / "secret.png")
    (folder / "dog" / "inside.png").symlink_to(folder / "dog" / "1.png")
    assert len(photos()) == 7
    (folder / "dog" / "outside.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="^photos/dog/outside.png: is a link out of the folder"):
        photos()
    (folder / "dog" / "outside.png").unlink()
    (folder / "bird").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(DataError, match="^photos/bird: is a link to a folder"):
        photos()


def test_folders_that_are_no_classes(folder, tmp_path):
    (tmp_path / "all").mkdir()
    folder.rename(tmp_path / "all" / "train")
    with pytest.raises(DataError, match="holds splits .*train: all/train"):
        photos(train="all")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no class folders"):
        photos(train="none")
    (tmp_path / "none" / "cat").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        photos(train="none")
    with pytest.raises(DataError, match="folder of images, and the task is text"):
        read(Data(train="all/train"), "train", task="text_classification")


def test_what_is_left_out_of_a_folder_is_said(folder):
    (folder / "dog" / "notes.txt").write_text("x")
    (folder / "bird").mkdir()
    with pytest.warns(UserWarning) as caught:
        photos()
    assert ["notes.txt" in str(caught[0].message), "'bird'" in str(caught[1].message)] == [True, True]


def rotated():
    image = Pillow.new("RGB", (20, 10))
    image.paste((255, 255, 255), (0, 0, 10, 10))  # the left half is white; upright, that is the top half
    exif = Pillow.Exif()
    exif[0x0112] = 6
    return encoded(image, "PNG", exif=exif)


def palette():
    image = picture((0, 128, 0)).quantize()
    return encoded(image, "PNG")


def half_clear():
    return encoded(Pillow.new("RGBA", (20, 10), (0, 0, 0, 0)), "PNG")


def sixteen_bit():
    return encoded(Pillow.fromarray(np.full((10, 20), 32896, dtype=np.uint16)), "PNG")


@pytest.mark.parametrize(
    ("content", "size", "pixel"),
    [
        (rotated(), (10, 20), (255, 255, 255)),
        (palette(), (20, 10), (0, 128, 0)),
        (half_clear(), (20, 10), (255, 255, 255)),
        (sixteen_bit(), (20, 10), (128, 128, 128)),
        (encoded(Pillow.new("CMYK", (20, 10), (0, 0, 0, 0)), "TIFF"), (20, 10), (255, 255, 255)),
        (encoded(Pillow.new("LA", (20, 10), (9, 255)), "PNG"), (20, 10), (9, 9, 9)),
        (encoded(Pillow.new("1", (20, 10), 1), "PNG"), (20, 10), (255, 255, 255)),
        (encoded(picture(), "GIF", save_all=True, append_images=[picture((0, 0, 255))]), (20, 10), (255, 0, 0)),
    ],
    ids=["turned", "palette", "transparent", "16 bit", "CMYK", "grey with alpha", "1 bit", "animated"],
)
def test_every_kind_of_picture_becomes_rgb(folder, content, size, pixel):
    (folder / "dog" / "9.png").write_bytes(content)
    image = photos().image(6)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", size, pixel)


def test_pictures_in_datasets_and_in_lists_of_paths(folder, tmp_path):
    features = Features({"img": Image(), "label": ClassLabel(names=["cat", "dog"])})
    rows = {"img": [str(folder / "cat" / "0.png"), str(folder / "dog" / "1.png")], "label": [0, 1]}
    data = Dataset.from_dict(rows, features=features)
    table = photos(train=data)
    assert table.image(1).getpixel((0, 0)) == (1, 0, 0) and table.where(1) == "data.train row 2"
    data.to_parquet(tmp_path / "a.parquet")
    assert photos(train="a.parquet").image(1).getpixel((0, 0)) == (1, 0, 0)
    (folder / "list.csv").write_text("file_name,label\ncat/0.png,cat\ndog/1.png,dog\n")
    assert photos(train="photos/list.csv").image(1).getpixel((0, 0)) == (1, 0, 0)
    (folder / "list.csv").write_text("file_name,label\ncat/0.png,cat\ndog/7.png,dog\n")
    with pytest.raises(DataError, match="list.csv line 3: .*no such file"):
        photos(train="photos/list.csv")


def test_the_same_picture_in_two_splits_is_counted(folder, tmp_path):
    other = tmp_path / "other" / "dog"
    other.mkdir(parents=True)
    picture((5, 0, 0)).save(other / "copy.png")
    picture((50, 0, 0)).save(other / "new.png")
    with pytest.warns(UserWarning, match=r"1 of 2 images of validation are in train too \(first: other/dog/copy.png"):
        photos("validation", validation="other")


def test_a_share_of_a_folder_is_stratified(folder):
    held = photos("validation", validation="34%")
    assert held.labels.tolist() == [0, 1] and len(photos(validation="34%")) == 4


def test_the_fingerprint_follows_the_pictures(folder):
    before = photos().fingerprint
    assert photos().fingerprint == before
    picture((9, 9, 9)).save(folder / "cat" / "0.png")
    assert photos().fingerprint != before
