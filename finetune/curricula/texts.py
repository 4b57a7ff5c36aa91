"""Difficulty of texts from the tokens that they are made of.

A token that every text has says nothing of any of them and is left out: so are those that frame each text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

# Token ids of some texts, one text after the other, (tokens,), and how many each has, (texts,).
Chunks = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]


def rarity(chunks: Chunks) -> np.ndarray:
    """How rare the tokens of a text are, in nats: the sum of -log p(w) (Platanios et al. 2019, arXiv 1903.09848).

    p(w) is the share of w among all tokens of the split. Long texts are rarer; ``tf_idf`` leaves length out.

    Args:
        chunks: All texts; gone through twice.

    Returns:
        (texts,) float64.
    """
    counts, num_texts_with, num_texts = _counted(chunks)
    counts[num_texts_with == num_texts] = 0
    total = counts.sum()
    information = np.zeros(len(counts))
    is_kept = counts > 0
    information[is_kept] = np.log(total / counts[is_kept])
    return _per_text(chunks, information)


def tf_idf(chunks: Chunks) -> np.ndarray:
    """How telling the tokens of a text are: the sum over its tokens of tf idf, with tf its share of the text.

    idf(w) = ln((1 + N) / (1 + n_w)) + 1 of N texts, n_w of which have w: the smooth form of scikit-learn's
    ``TfidfTransformer`` (Sparck Jones 1972; Salton & Buckley 1988). So it is the mean idf of the text's tokens.

    Args:
        chunks: All texts; gone through three times.

    Returns:
        (texts,) float64; 0 for a text of which nothing is left.
    """
    _, num_texts_with, num_texts = _counted(chunks)
    is_kept = num_texts_with < num_texts
    idf = np.where(is_kept, np.log((1 + num_texts) / (1 + num_texts_with)) + 1, 0.0)
    return _per_text(chunks, idf) / np.maximum(1, _per_text(chunks, is_kept.astype(np.float64)))


def _counted(chunks: Chunks) -> tuple[np.ndarray, np.ndarray, int]:
    """How often each token occurs, in how many texts, and how many texts there are."""
    counts = np.zeros(0, np.int64)
    num_texts_with = np.zeros(0, np.int64)
    num_texts = 0
    for ids, lengths in chunks():
        num_texts += len(lengths)
        if not len(ids):
            continue
        rows = np.repeat(np.arange(len(lengths)), lengths)
        size = int(ids.max()) + 1
        # One number for each pair of text and token, so that a token counts once in a text.
        distinct = np.unique(rows * size + ids) % size
        counts, num_texts_with = _sum(counts, np.bincount(ids)), _sum(num_texts_with, np.bincount(distinct))
    return counts, num_texts_with, num_texts


def _sum(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    total = longer.astype(np.int64)
    total[: len(shorter)] += shorter
    return total


def _per_text(chunks: Chunks, values: np.ndarray) -> np.ndarray:
    """The sum of ``values`` (vocabulary,) over the tokens of each text, (texts,)."""
    found = [
        np.bincount(np.repeat(np.arange(len(lengths)), lengths), weights=values[ids], minlength=len(lengths))
        for ids, lengths in chunks()
    ]
    return np.concatenate([np.zeros(0), *found])
