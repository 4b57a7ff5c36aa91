"""Splits of data sets on the Hub, from its cache where they are there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..choices import listed, nearest
from ..errors import DataError
from .arrow_rows import from_dataset
from .rows import Rows


def hub_splits(name: str, revision: str | None) -> tuple[str, ...]:
    """The splits of a data set on the Hub.

    Raises:
        DataError: It cannot be reached and is not cached, or does not exist.
    """
    return tuple(_loaded(name, revision))


def read_hub(name: str, split: str, revision: str | None) -> Rows:
    """Read one split of ``owner/name`` or ``owner/name:config``.

    Raises:
        DataError: As ``hub_splits``, or there is no such split.
    """
    splits = _loaded(name, revision)
    if split not in splits:
        raise DataError(f"{name} has no split {split!r}{nearest(split, splits)}; it has {listed(splits)}.")
    return from_dataset(splits[split], f"{name} {split}")


@lru_cache(maxsize=4)
def _loaded(name: str, revision: str | None) -> Mapping[str, Any]:
    from datasets import load_dataset

    from ..models.offline import hub_is_offline

    identifier, _, config = name.partition(":")
    online = not hub_is_offline()
    try:
        return load_dataset(identifier, config or None, revision=revision)
    except Exception as error:  # a dozen kinds, from the network, the Hub and the files
        raise DataError(f"{name}: {_why(error, online=online)}") from error


def _why(error: Exception, *, online: bool) -> str:
    lines = str(error.__cause__ or error).strip().splitlines()
    first = lines[0] if lines else type(error).__name__
    if not online:
        return (
            "the Hub cannot be reached, and the data set is not in the cache. Work offline with task.data=pydocs or "
            "digits, or with files (train: reviews.csv); or download it where there is a network and copy the cache "
            "(HF_HOME)."
        )
    if "onfig name is missing" in str(error) or "BuilderConfig" in str(error):
        return f"{first}. Write the configuration behind a colon, as owner/name:config."
    if "cripts are no longer supported" in str(error):
        return "it is a script, and those are no longer run. Look for a copy in parquet, or download its files."
    if type(error).__name__ == "DatasetNotFoundError":
        return "the Hub has no such data set (or it is private: log in with `hf auth login`)."
    return f"{first}."
