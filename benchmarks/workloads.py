"""The data of a row on disk: model folders, texts of drawn lengths, images; made once, the same for all."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .definition import Work
from .shapes import LABELS, SHAPES, Shape, save, word

SEED = 7
_FIRST_WORD = 5  # after the special tokens
_SPECIAL = 2  # [CLS] and [SEP]
_LENGTHS = Path(__file__).with_name("token_lengths.json")


@dataclass(frozen=True)
class Workload:
    """Where a row's model and data lie."""

    work: Work
    shape: Shape
    model: Path
    folder: Path

    @property
    def train(self) -> Path:
        """A csv file with the columns text and label, or a folder of images by class."""
        return self.folder / ("train" if self.shape.is_image else "train.csv")

    @property
    def validation(self) -> Path:
        """As ``train``."""
        return self.folder / ("validation" if self.shape.is_image else "validation.csv")

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each training example after it was cut, (examples,), in the order of the file."""
        drawn = np.load(self.folder / "lengths.npy")
        return np.minimum(drawn, self.work.max_length) if not self.shape.is_image else drawn


def workload(work: Work, root: Path, *, dropout: bool = True) -> Workload:
    """The row's model and data under ``root``, made where they are not there yet.

    Args:
        work: Of the row.
        root: Of everything that the benchmarks write.
        dropout: False for the equality gates.
    """
    shape = SHAPES[work.shape]
    kind = "" if dropout or shape.is_image else "-without-dropout"
    model = _made(root / "models" / f"{work.shape}{kind}", lambda folder: save(shape, folder, dropout=dropout))
    size = f"{work.num_examples}-{work.validation}"
    name = f"images-{shape.image_size}-{size}" if shape.is_image else f"{work.lengths}-{shape.vocabulary}-{size}"
    folder = _made(root / "data" / name, lambda path: _write(work, shape, path))
    return Workload(work, shape, model, folder)


def _made(folder: Path, make: Callable[[Path], None]) -> Path:
    """Written aside and renamed, so that what an interrupted run left is never used."""
    if not folder.exists():
        aside = folder.with_name(f".{folder.name}.{os.getpid()}")
        aside.mkdir(parents=True)
        try:
            make(aside)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def _write(work: Work, shape: Shape, folder: Path) -> None:
    for number, (split, count) in enumerate((("train", work.num_examples), ("validation", work.validation))):
        rng = np.random.default_rng((SEED, number))
        if shape.is_image:
            _write_images(folder / split, count, size=shape.image_size, rng=rng)
            lengths = np.full(count, shape.tokens_per_image)
        else:
            lengths = drawn_lengths(work.lengths, count, rng=rng)
            _write_texts(folder / f"{split}.csv", lengths, vocabulary=shape.vocabulary, rng=rng)
        if split == "train":
            np.save(folder / "lengths.npy", lengths)


def drawn_lengths(name: str, count: int, *, rng: np.random.Generator) -> np.ndarray:
    """Tokens of each of ``count`` texts, drawn from the histogram of a real data set, or all the same."""
    if name.isdecimal():
        return np.full(count, int(name))
    histogram = json.loads(_LENGTHS.read_text(encoding="utf-8"))["sets"][name]["histogram"]
    counts = np.array(list(histogram.values()), dtype=np.float64)
    lengths = np.array([int(length) for length in histogram])
    return rng.choice(lengths, count, p=counts / counts.sum())


def _write_texts(path: Path, lengths: np.ndarray, *, vocabulary: int, rng: np.random.Generator) -> None:
    """Words are as frequent as in language (Zipf-Mandelbrot, offset 2.7): a text set uses part of its vocabulary."""
    ranks = np.arange(vocabulary - _FIRST_WORD)
    shares = np.cumsum(1 / (ranks + 2.7))
    words = np.array([word(number) for number in rng.permutation(ranks) + _FIRST_WORD])
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("text", "label"))
        for at in range(0, len(lengths), 10_000):
            part = np.maximum(lengths[at : at + 10_000] - _SPECIAL, 1)
            chosen = words[np.searchsorted(shares, rng.random(int(part.sum())) * shares[-1])]
            labels = rng.integers(len(LABELS), size=len(part))
            for text, label in zip(np.split(chosen, np.cumsum(part)[:-1]), labels, strict=True):
                rows.writerow((" ".join(text), LABELS[label]))


def _write_images(folder: Path, count: int, *, size: int, rng: np.random.Generator) -> None:
    """JPEG files of smooth noise, by class; noise of every pixel would not compress as photographs do."""
    from PIL import Image

    for label in LABELS:
        (folder / label).mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8))
        label = LABELS[number % len(LABELS)]
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(folder / label / f"{number:06}.jpg", quality=90)
