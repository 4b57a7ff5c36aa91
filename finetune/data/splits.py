"""Holding out shares of train, and noticing what train and another split have in common."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..errors import DataError
from ..randomness import generator
from .table import Table

_SEED = 0  # not the run's: runs that differ in their seed must be scored on the same rows


def held_out(table: Table, shares: Mapping[str, float]) -> dict[str, Table]:
    """Cut a training table into train and its shares, stratified by class, or by the rarest of a row's labels.

    A row is in exactly one part, rows with the same content are in the same part, the parts depend on
    nothing but the table and the shares, and every class keeps an example in train.

    Args:
        table: The rows to cut up.
        shares: Fraction of the rows by split, as ``{"validation": 0.1}``.

    Raises:
        DataError: A share is less than one row.
    """
    classes = _classes(table)
    sizes = {name: sum(map(len, groups)) for name, groups in classes.items()}
    parts: dict[str, list[int]] = {split: [] for split in shares}
    left = {name: _shuffled(groups, name) for name, groups in classes.items()}
    for split, share in shares.items():
        for name, count in _counts(sizes, share).items():
            _move(left[name], parts[split], count)
    parts["train"] = [index for groups in left.values() for group in groups for index in group]
    for split, indices in parts.items():
        if not indices:
            raise DataError(
                f"{split}: {shares.get(split, 1):.0%} of the {len(table)} rows of {table.rows.source} leaves no row. "
                "Hold out a larger share, or name a file."
            )
    found = {split: table.subset(np.sort(np.array(indices, dtype=np.int64))) for split, indices in parts.items()}
    return {split: part if split == "train" else replace(part, skipped=()) for split, part in found.items()}


def warn_of_leakage(train: Table, other: Table, split: str) -> int:
    """Warn where examples of another split are in train too; returns how many are."""
    seen = set(train.contents)
    found = [index for index, content in enumerate(other.contents) if content in seen]
    if found:
        what = "texts" if other.text else "images"
        warnings.warn(
            f"{len(found)} of {len(other)} {what} of {split} are in train too (first: {other.where(found[0])}); its "
            "scores will look better than they are.",
            stacklevel=3,
        )
    return len(found)


def _classes(table: Table) -> dict[str, list[list[int]]]:
    """Indices by stratum, grouped by equal content; a group belongs to that of its first row."""
    groups: dict[object, list[int]] = {}
    for index, content in enumerate(table.contents):
        groups.setdefault(content, []).append(index)
    strata = _strata(table)
    classes: dict[str, list[list[int]]] = {}
    for group in groups.values():
        classes.setdefault(strata[group[0]], []).append(group)
    return dict(sorted(classes.items()))


def _strata(table: Table) -> list[str]:
    """The class of each row; of several labels the rarest, as those are the ones that a part may come to lack."""
    names, labels = table.label_names, table.labels
    if not names or labels is None:
        return [""] * len(table)
    if labels.ndim == 1:
        return [names[label] for label in labels.tolist()]
    rarest = np.where(labels, labels.sum(axis=0), len(labels) + 1).argmin(axis=1)
    counts = labels.sum(axis=1)
    return [names[label] if count else "" for label, count in zip(rarest.tolist(), counts.tolist(), strict=True)]


def _shuffled(groups: Sequence[list[int]], name: str) -> list[list[int]]:
    return [groups[place] for place in generator(_SEED, "held out", name).permutation(len(groups))]


def _counts(sizes: Mapping[str, int], share: float) -> dict[str, int]:
    """Rows to hold out by class: the share of each, rounded so that they add up (largest remainders first)."""
    exact = {name: size * share for name, size in sizes.items()}
    counts = {name: math.floor(count) for name, count in exact.items()}
    wanted = math.floor(sum(sizes.values()) * share + 0.5)
    by_remainder = sorted(exact, key=lambda name: (counts[name] - exact[name], name))
    for name in by_remainder[: wanted - sum(counts.values())]:
        counts[name] += 1
    return counts


def _move(groups: list[list[int]], part: list[int], count: int) -> None:
    """Move whole groups until ``count`` rows are there; the last group stays."""
    while count > 0 and len(groups) > 1:
        group = groups.pop()
        part.extend(group)
        count -= len(group)
