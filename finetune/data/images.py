"""Decoding pictures of any kind to upright 8-bit RGB, and finding the broken ones before training does."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .rows import Fault, Rows

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 50_000_000
_AT_ONCE = 1000  # pictures that threads are given at a time
_EDGE = 4096  # bytes of the start and the end of a file that its digest and the truncation check look at
# Formats that cameras, phones and data sets use. PIL knows more, and some of those start other programs (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
_ENDINGS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}


def decoded(value: Any, *, folder: Path, where: str) -> Image:
    """A picture as upright 8-bit RGB; transparency is laid over white, 16 bit is scaled to 8.

    Args:
        value: A path (relative to ``folder``), encoded bytes, ``{"bytes", "path"}``, or a PIL image.
        folder: What a relative path is relative to.
        where: The name of the picture in messages.

    Raises:
        DataError: It is not a picture, truncated, or too large.
    """
    try:
        picture = _opened(value, folder)
        reason = _refused(picture)
        if reason is None:
            picture.load()
            return _rgb(_upright(picture))
    except Exception as error:  # PIL's decoders raise a dozen kinds, most without the name of the file
        reason = _reason(error)
    raise DataError(
        f"{where}: {reason}. Replace or remove the picture, or set task.data.bad_rows: skip, which decodes all "
        "pictures before training."
    )


def scan(rows: Rows, column: str, *, decodes: bool = False) -> tuple[list[bytes], list[Fault]]:
    """Look at every picture's header, size and end.

    Args:
        rows: With the pictures.
        column: That they are in.
        decodes: Every one of them, in as many threads as there are processors; else only those that do not end as
            their format says, and some that are broken inside pass for sound.

    Returns:
        The digest of each picture (size, first and last 4 KiB), and the pictures that cannot be used.
    """
    digests, faults = [], []
    for position, (digest, reason) in enumerate(_all_inspected(rows, column, decodes=decodes)):
        digests.append(digest)
        if reason is not None:
            faults.append(rows.fault(position, reason))
    return digests, faults


def _all_inspected(rows: Rows, column: str, *, decodes: bool) -> Iterator[tuple[bytes, str | None]]:
    inspected = partial(_inspected, folder=rows.folder, decodes=decodes)
    values = iter(rows.columns[column])
    if not decodes:
        yield from map(inspected, values)
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding gives the interpreter's lock back
        while some := list(islice(values, _AT_ONCE)):
            yield from pool.map(inspected, some)


def header_size(value: Any, folder: Path) -> tuple[int, int]:
    """Width and height of a picture that ``scan`` found sound, as its header says, before it is turned upright."""
    value = _plain(value)
    if not isinstance(value, str | bytes):
        return value.size
    with io.BytesIO(value) if isinstance(value, bytes) else _file(folder / value) as file:
        return _opened(file, Path()).size


def content_of(value: Any, folder: Path) -> bytes:
    """What changes when a picture does, beside its digest of ``scan``: time of a file, or all encoded bytes."""
    import xxhash

    value = _plain(value)
    if isinstance(value, str):
        return (folder / value).stat().st_mtime_ns.to_bytes(8, "little", signed=True)
    return xxhash.xxh3_128_digest(value) if isinstance(value, bytes) else b""


def _inspected(value: Any, *, folder: Path, decodes: bool) -> tuple[bytes, str | None]:
    import xxhash

    value = _plain(value)
    if value is None or value == "":
        return b"", "the image is missing"
    if not isinstance(value, str | bytes) and not hasattr(value, "tobytes"):
        return b"", f"the image is {str(value)[:40]!r}, expected a path or the bytes of a file"
    if not isinstance(value, str | bytes):  # an image that is in memory already
        return xxhash.xxh3_128_digest(repr((value.size, value.mode)).encode() + value.tobytes()), _refused(value)
    try:
        with io.BytesIO(value) if isinstance(value, bytes) else _file(folder / value) as file:
            size = file.seek(0, io.SEEK_END)
            if size == 0:
                return b"", "is empty (zero bytes)"
            file.seek(max(0, size - _EDGE))
            end = file.read(_EDGE)
            file.seek(0)
            start = file.read(_EDGE)
            file.seek(0)
            digest = xxhash.xxh3_128_digest(size.to_bytes(8, "little") + start + end)
            return digest, _fault(file, start, end, size, decodes=decodes)
    except OSError as error:
        return b"", f"cannot be read ({error.strerror or error})"


def _file(path: Path) -> io.BufferedReader:
    if not path.is_file():  # a pipe would block for ever
        raise FileNotFoundError(2, f"no such file: {path}")
    return path.open("rb")


def _fault(file: Any, start: bytes, end: bytes, size: int, *, decodes: bool) -> str | None:
    try:
        picture = _opened(file, Path())
        reason = _refused(picture)
        if reason is None and (decodes or not _ends(picture.format, start, end, size)):
            picture.load()
        if reason is None and decodes:
            _rgb(_upright(picture))
        return reason
    except Exception as error:  # as in ``decoded``
        return _reason(error)


def _ends(kind: str | None, start: bytes, end: bytes, size: int) -> bool:
    """Whether a file ends as its format says; if not, only decoding it tells whether it is truncated."""
    if kind == "WEBP":
        return int.from_bytes(start[4:8], "little") + 8 <= size
    return kind in _ENDINGS and end.rstrip(b"\0\r\n ").endswith(_ENDINGS[kind])


def _plain(value: Any) -> Any:
    """The path or the bytes of a ``datasets`` image."""
    if isinstance(value, dict):
        return value.get("bytes") or value.get("path")
    return value


def _opened(value: Any, folder: Path) -> Image:
    from PIL import Image

    value = _plain(value)
    if isinstance(value, Image.Image):
        return value.copy()
    if isinstance(value, bytes):
        value = io.BytesIO(value)
    elif isinstance(value, str):
        value = io.BytesIO((folder / value).read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # an error follows: our limit is lower
        return Image.open(value, formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """Those of our formats that this build of PIL can open."""
    from PIL import Image

    Image.init()
    return tuple(kind for kind in _FORMATS if kind in Image.OPEN)


def _refused(picture: Image) -> str | None:
    width, height = picture.size
    if width * height > MOST_PIXELS:
        return f"{width} x {height} pixels, at most {MOST_PIXELS // 10**6} million are read; make it smaller"
    return "32-bit float pixels, expected 8 or 16 bit" if picture.mode == "F" else None


def _reason(error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {MOST_PIXELS // 10**6} million pixels; make it smaller"
    if isinstance(error, UnidentifiedImageError):
        return "is not a picture that can be read (JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, AVIF)"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if "truncated" in str(error).lower():
        return "is truncated"
    return f"is broken ({str(error) or type(error).__name__})"


def _upright(picture: Image) -> Image:
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # EXIF that cannot be read says nothing about which way is up; the pixels are sound
        return picture


def _rgb(picture: Image) -> Image:
    from PIL import Image

    if picture.mode.startswith("I"):
        picture = _eight_bit(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _eight_bit(picture: Image) -> Image:
    """From 16 bit; PIL's own conversion cuts everything above 255 off to white."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(picture).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("32-bit integer pixels, expected 8 or 16 bit")
    return Image.fromarray((pixels // 257).astype(np.uint8))
