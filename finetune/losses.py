"""Losses per item, from logits; what is summed and divided by what is the loop's business (DESIGN, invariant 1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_HALLEY_STEPS = 8  # the series they start from is off by 3 % at most, and each step cubes what is left


def _at_least_fp32(logits: Tensor) -> Tensor:
    """An exponential or a square in half precision overflows; float64 stays for tests that need its digits."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _missing(losses: Tensor) -> Tensor:
    """1 - p of losses -log p, without cancellation; not 0, where a power below 1 has no slope."""
    return -torch.expm1(-losses).clamp(max=-torch.finfo(losses.dtype).tiny)


def binary_cross_entropy(
    logits: Tensor, labels: Tensor, *, positive_weights: Tensor | None = None, gamma: float = 0.0
) -> Tensor:
    """Negative log-likelihood of every label being there or not, the mean over labels, in nats.

    Args:
        logits: (items, labels).
        labels: Which of them each item has, (items, labels) bool.
        positive_weights: Factors of the terms of labels that are there, (labels,), as ``torch.nn.BCEWithLogitsLoss``
            takes them; None: 1.
        gamma: Each term is multiplied by (1 - p)^gamma, for p the probability of what is right (Lin et al. 2017).

    Returns:
        (items,), in float32 (float64 for float64 logits).
    """
    logits = _at_least_fp32(logits)
    weights = None if positive_weights is None else positive_weights.to(logits.dtype)
    found = functional.binary_cross_entropy_with_logits(
        logits, labels.to(logits.dtype), reduction="none", pos_weight=weights
    )
    if gamma:
        plain = functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
        found = found * _missing(plain) ** gamma
    return found.mean(dim=-1)


def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Negative log-likelihood of the labels, in nats.

    Args:
        logits: (items, classes).
        labels: Class numbers, (items,) int64.
        label_smoothing: Share of the target that all classes get alike (Szegedy et al. 2016, section 7).

    Returns:
        (items,), in float32 (float64 for float64 logits).
    """
    return functional.cross_entropy(_at_least_fp32(logits), labels, reduction="none", label_smoothing=label_smoothing)


def focal(logits: Tensor, labels: Tensor, *, gamma: float) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, for p the probability of the label (Lin et al. 2017).

    Args:
        logits: (items, classes).
        labels: Class numbers, (items,) int64.
        gamma: At least 0; 0 is cross-entropy.

    Returns:
        (items,), in float32 (float64 for float64 logits).
    """
    losses = cross_entropy(logits, labels)
    return _missing(losses) ** gamma * losses


def span_cross_entropy(logits: Tensor, places: Tensor, *, offsets: Tensor, owners: Tensor) -> Tensor:
    """Mean of the negative log-likelihoods of where an answer starts and where it ends, each over a text's tokens.

    Args:
        logits: Of start and end, (tokens, 2), text after text.
        places: Of the right tokens, counted in their text, (texts, 2) int64.
        offsets: Text i is rows ``offsets[i]`` to ``offsets[i + 1]``, (texts + 1,).
        owners: The text of each token, (tokens,).

    Returns:
        (texts,), in float32 (float64 for float64 logits).
    """
    logits = _at_least_fp32(logits)
    index = owners[:, None].expand_as(logits)
    highest = logits.detach().new_full((len(places), 2), -math.inf).scatter_reduce(0, index, logits.detach(), "amax")
    sums = torch.zeros_like(highest).index_add(0, owners, (logits - highest[owners]).exp())
    right = logits.gather(0, offsets[:-1, None] + places)
    return (sums.log() + highest - right).mean(dim=1)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared difference between the single output and the target.

    Args:
        outputs: (items, 1).
        targets: (items,).

    Returns:
        (items,), in float32 (float64 for float64 outputs).
    """
    assert outputs.dim() == 2 and outputs.shape[1] == 1, f"one output per item, not {tuple(outputs.shape)}"
    outputs = _at_least_fp32(outputs).squeeze(1)  # (items, 1) - (items,) would broadcast to (items, items)
    return (outputs - targets.to(outputs.dtype)) ** 2


def super_loss(losses: Tensor, *, threshold: Tensor | float, regularisation: float) -> Tensor:
    """(l - t) s + r (log s)^2 at the confidence s that minimises it (Castells et al. 2020).

    s = exp(-W(max(-2/e, (l - t)/r) / 2)) for Lambert's W: above 1 for what is easier than t, below for what is harder.
    Since s is the minimum, the slope over l is s itself.

    Args:
        losses: l, (items,).
        threshold: t, in nats as the losses.
        regularisation: r, above 0; the larger, the nearer is every s to 1.
    """
    with torch.no_grad():
        apart = (losses.double() - threshold) / regularisation
        log_confidence = -lambert_w(apart.clamp(min=-2 / math.e) / 2)
    confidence = log_confidence.exp().to(losses.dtype)
    return (losses - threshold) * confidence + regularisation * (log_confidence**2).to(losses.dtype)


def lambert_w(values: Tensor) -> Tensor:
    """W with W exp(W) = x, the principal branch, for x from -1/e on, in float64.

    Halley's iteration, from the series at the branch point (Corless et al. 1996, equation 4.22) or from log(1 + x).
    """
    values = values.double()
    from_branch = (2 * (math.e * values + 1)).clamp(min=0).sqrt()
    series = -1 + from_branch - from_branch**2 / 3 + from_branch**3 * 11 / 72
    found = torch.where(values < 0.5, series, values.clamp(min=0).log1p())
    for _ in range(_HALLEY_STEPS):
        above = (found + 1).clamp(min=1e-12)  # 0 at the branch point, where nothing is left to be done
        exponential = found.exp()
        off = found * exponential - values
        found = found - off / (exponential * above - (found + 2) * off / (2 * above))
    return found


def self_paced_weights(losses: Tensor, *, threshold: Tensor | float, kind: str) -> Tensor:
    """How much each item counts while only losses below a threshold are learned from.

    ``hard`` 1 below it, else 0 (Kumar et al. 2010); ``linear`` 1 - l/t and ``logarithmic`` log(l + z)/log z with
    z = 1 - t, both 0 from t on (Jiang et al. 2014, "Easy samples first"); ``logistic`` (1 + e^-t)/(1 + e^(l - t))
    (Xu et al. 2015), which leaves every item some weight.

    The logarithmic form needs t below 1, so losses are scaled until t is 1/2: 1 - log2(1 + l/t).

    Args:
        losses: l, (items,), at least 0.
        threshold: t, above 0.
        kind: One of these words.
    """
    share = losses / threshold
    if kind == "hard":
        return (share < 1).to(losses.dtype)
    if kind == "linear":
        return (1 - share).clamp(min=0)
    if kind == "logarithmic":
        return (1 - torch.log2(1 + share)).clamp(min=0)
    assert kind == "logistic", kind
    threshold = torch.as_tensor(threshold, dtype=losses.dtype, device=losses.device)
    return (1 + torch.exp(-threshold)) * torch.sigmoid(threshold - losses)
