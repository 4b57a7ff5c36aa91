"""What the curves of a range test say: where the loss falls fastest, and whether that can be relied on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .sweep import Curve, Sweep

_WIDTH = 0.25  # decades: of the window that a slope is taken over; a BERT-like fall is about one decade wide
_FEWEST = 10  # points that a slope needs
_LEAST_FALL = 0.05  # of the loss at the start
_SURE = 3.0  # standard errors
_APART = 3.0  # factor between repeats, and between a suggestion and an end of the range
_SLOW = 4.0  # updates a decade, below which the loss lags behind the rate; ours, see docs/lr_find.md
_NORMAL = 1.4826  # median absolute deviation to standard deviation


class Fitted(NamedTuple):
    """The course of all repeats together."""

    lrs: np.ndarray  # (points,)
    losses: np.ndarray  # (points,)
    slopes: np.ndarray  # (points,): per decade
    errors: np.ndarray  # (points,): standard errors of the slopes


class Reading(NamedTuple):
    """What the curves say."""

    suggestion: float | None  # for ``optimizer.lr``; None: no point of the curves qualifies
    repeats: tuple[float | None, ...]  # of each curve alone
    doubts: tuple[str, ...]  # why it is not reliable; empty: it is
    fitted: Fitted | None


def read(curves: Sequence[Curve], sweep: Sweep) -> Reading:
    """The suggestion is where d loss / d log LR of all repeats together is lowest, before the loss is.

    By log LR, as the sweep is equally spaced in it: by LR itself every slope is divided by it, and noise at the
    lowest rates wins.

    Args:
        curves: One for each repeat.
        sweep: That they are of.
    """
    common = [_trimmed(curve, curves) for curve in curves]
    fitted = fit(common)
    each = tuple(_of_one(curve) for curve in curves)
    if fitted is None:
        return Reading(None, each, (_too_short(curves),), None)
    at = _steepest(fitted)
    if at is None:
        doubt = "the loss only rises. Lower --from, or look at the data and the labels."
        return Reading(None, each, (doubt,), fitted)
    return Reading(float(fitted.lrs[at]), each, tuple(_doubts(fitted, at, each, curves, sweep)), fitted)


def fit(curves: Sequence[Curve]) -> Fitted | None:
    """Local lines through the points in log LR, weighted by a Gaussian; None where there are too few points."""
    lrs = curves[0].lrs if curves else np.zeros(0)
    if len(lrs) < _FEWEST:
        return None
    x = np.concatenate([np.log10(curve.lrs) for curve in curves])
    y = np.concatenate([curve.losses for curve in curves])
    start = float(np.mean([curve.losses[:_FEWEST].mean() for curve in curves]))
    y = np.minimum(y, 2 * start - min(start, float(y.min())))  # else the last losses tilt every window near them
    noise = _noise(curves)
    losses, slopes, errors = [], [], []
    for center in np.log10(lrs):
        weights = np.exp(-0.5 * ((x - center) / _WIDTH) ** 2)
        offsets = x - np.average(x, weights=weights)
        spread = float((weights * offsets**2).sum())
        slope = float((weights * offsets * y).sum()) / spread
        losses.append(np.average(y, weights=weights) + slope * (center - np.average(x, weights=weights)))
        slopes.append(slope)
        errors.append(noise * float(np.sqrt(((weights * offsets) ** 2).sum())) / spread)
    return Fitted(lrs, np.array(losses), np.array(slopes), np.array(errors))


def _noise(curves: Sequence[Curve]) -> float:
    """The standard deviation of a loss around its course, by the differences of neighbours; jumps do not count."""
    steps = np.concatenate([np.diff(curve.losses) for curve in curves])
    return float(_NORMAL * np.median(np.abs(steps - np.median(steps))) / np.sqrt(2))


def _trimmed(curve: Curve, curves: Sequence[Curve]) -> Curve:
    """Without the rates that another repeat did not reach; it alone would set the mean there."""
    shortest = min(len(other.lrs) for other in curves)
    return curve._replace(lrs=curve.lrs[:shortest], losses=curve.losses[:shortest])


def _doubts(fitted: Fitted, at: int, each: Sequence[float | None], curves: Sequence[Curve], sweep: Sweep) -> list[str]:
    """Why a suggestion is not reliable."""
    found = []
    decades = float(np.log10(sweep.stop / sweep.start))
    if sweep.steps < _SLOW * decades:
        found.append(
            f"the rate grows faster than the loss can follow, {sweep.steps / decades:.1f} updates a decade, so the "
            f"suggestion is too high. Take {int(np.ceil(_SLOW * decades))} --steps or more, or a narrower range."
        )
    fall = float(fitted.losses[0] - fitted.losses.min())
    if fall < _LEAST_FALL * abs(float(fitted.losses[0])):
        found.append(
            f"the loss hardly falls, from {fitted.losses[0]:.3g} to {fitted.losses.min():.3g}. More --steps, or a "
            "--warm-head, may show more."
        )
    if -fitted.slopes[at] < _SURE * fitted.errors[at]:
        found.append(
            f"the noise hides the fall: {-fitted.slopes[at]:.2g} per decade, with a standard error of "
            f"{fitted.errors[at]:.2g}. Take more --repeats or --steps, or a larger batch_size."
        )
    if fitted.lrs[at] < _APART * sweep.start:
        found.append("the loss falls fastest at the lowest rates tried. Lower --from.")
    is_whole = all(curve.ended == "reached" for curve in curves)
    if is_whole and fitted.lrs[int(np.argmin(fitted.losses))] > sweep.stop / _APART:
        found.append("the loss still falls at the highest rate tried. Raise --to.")
    alone = [lr for lr in each if lr is not None]
    if len(alone) < len(each):
        found.append(f"{len(each) - len(alone)} of {len(each)} repeats show no fall.")
    elif max(alone) > _APART * min(alone):
        apart = max(alone) / min(alone)
        found.append(f"the repeats differ by a factor of {apart:.1f}. Take more --steps or --repeats.")
    return found


def _too_short(curves: Sequence[Curve]) -> str:
    shortest = min(curves, key=lambda curve: len(curve.lrs))
    why = "was not finite" if shortest.ended == "not finite" else "rose"
    return (
        f"with seed {shortest.seed} the loss {why} after {len(shortest.lrs)} updates, too few to see a fall. "
        "Lower --from, or look at the data and the labels."
    )


def _of_one(curve: Curve) -> float | None:
    """What one repeat would suggest."""
    fitted = fit([curve])
    at = _steepest(fitted) if fitted is not None else None
    return None if fitted is None or at is None else float(fitted.lrs[at])


def _steepest(fitted: Fitted) -> int | None:
    """The point before the lowest loss where the loss falls fastest; None where it never falls."""
    lowest = int(np.argmin(fitted.losses))
    if lowest == 0:
        return None
    at = int(np.argmin(fitted.slopes[: lowest + 1]))
    return at if fitted.slopes[at] < 0 else None
