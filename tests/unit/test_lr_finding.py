"""Reading the curves of a range test: synthetic ones, whose answer is known."""

from __future__ import annotations

import re

import numpy as np
import pytest

from finetune.layers import LayerGroup
from finetune.lr_finding import Sweep
from finetune.lr_finding.peak import peak_of
from finetune.lr_finding.reading import fit, read
from finetune.lr_finding.sweep import Curve, smoothed
from finetune.optimizers import AdamW
from finetune.plans import make_plan
from finetune.schedules import Constant, OneCycle, WarmupLinear
from finetune.strategies import LPFT, Discriminative, Freeze, Full, GradualUnfreeze

STEEPEST = 6e-5


def bert_like(noise: float, *, seed: int = 0, points: int = 100) -> Curve:
    """A loss that falls from ln 2 to 0.25 around 6e-5, in about a decade, and rises from 1e-3 on."""
    lrs = np.geomspace(1e-7, 10, points)
    falls = 0.44 / (1 + (lrs / STEEPEST) ** -1.7)
    rises = np.minimum((lrs / 5e-3) ** 2, 8)
    losses = np.log(2) - falls + rises + np.random.default_rng(seed).normal(0, noise, points)
    return Curve(seed, lrs, losses, "rose")


@pytest.mark.parametrize("seed", range(20))
def test_the_suggestion_is_where_the_loss_falls_fastest_in_log_lr(seed):
    curve = bert_like(0.003, seed=seed)
    found = read([curve], Sweep(repeats=1))
    assert 4e-5 < found.suggestion < 9e-5 and not found.doubts
    # By LR itself, as Lightning has it, noise at the lowest rates wins (notes: 9e-8).
    linear = curve.lrs[np.argmin(np.gradient(curve.losses[:60], curve.lrs[:60]))]
    assert linear < 3e-6


def test_a_line_in_log_lr_has_its_slope_everywhere():
    lrs = np.geomspace(1e-6, 1e-2, 41)
    found = fit([Curve(0, lrs, 3 - 0.25 * np.log10(lrs), "reached")])
    np.testing.assert_allclose(found.slopes, -0.25, rtol=1e-9)
    np.testing.assert_allclose(found.losses, 3 - 0.25 * np.log10(lrs), rtol=1e-9)
    np.testing.assert_allclose(found.errors, 0, atol=1e-9)


def test_standard_errors_are_those_of_the_noise():
    """The spread of the slope over 300 draws of the noise is what is said of one."""
    lrs = np.geomspace(1e-7, 10, 100)
    draws = np.random.default_rng(0).normal(0, 0.1, (300, 100))
    fits = [fit([Curve(0, lrs, 1 + draw, "reached")]) for draw in draws]
    assert np.std([one.slopes[50] for one in fits]) == pytest.approx(
        np.mean([one.errors[50] for one in fits]), rel=0.1
    )


def test_repeats_are_one_curve_with_less_noise():
    curves = [bert_like(0.1, seed=seed) for seed in range(9)]
    one, all_of_them = fit(curves[:1]), fit(curves)
    assert all_of_them.errors[50] < 0.5 * one.errors[50]
    assert 3e-5 < read(curves, Sweep(repeats=9)).suggestion < 1.2e-4


def test_a_rate_that_one_repeat_did_not_reach_does_not_count():
    long, short = bert_like(0.001), bert_like(0.001, seed=1)
    short = short._replace(lrs=short.lrs[:60], losses=short.losses[:60])
    assert len(read([long, short], Sweep()).fitted.lrs) == 60


@pytest.mark.parametrize(
    ("curves", "doubt"),
    [
        ([bert_like(0.0)._replace(losses=np.full(100, 0.69))], "only rises|hardly falls"),
        ([bert_like(0.0)._replace(losses=0.69 - 1e-3 * np.log10(bert_like(0.0).lrs / 1e-7))], "hardly falls"),
        ([bert_like(0.6)], "noise hides the fall"),
        ([Curve(0, np.geomspace(1e-7, 10, 100), np.linspace(2, 1, 100), "reached")], "highest rate tried. Raise --to"),
        ([Curve(0, bert_like(0.0).lrs[35:], bert_like(0.0).losses[35:], "rose")], "Lower --from"),
        (
            [Curve(7, np.geomspace(1e-7, 10, 100)[:4], np.ones(4), "not finite")],
            "seed 7 .* not finite after 4 updates",
        ),
        ([Curve(7, np.geomspace(1e-7, 10, 100)[:9], np.ones(9), "rose")], "seed 7 .* rose after 9 updates"),
        ([Curve(0, np.geomspace(1e-7, 10, 100), np.linspace(1, 2, 100), "rose")], "only rises"),
        ([bert_like(0.0), bert_like(0.0)._replace(losses=np.roll(bert_like(0.0).losses, -20))], "differ by a factor"),
    ],
    ids=["constant", "flat", "noisy", "still falling", "starts too high", "not finite", "at once", "rising", "apart"],
)
def test_what_cannot_be_relied_on_says_why(curves, doubt):
    found = read(curves, Sweep(start=curves[0].lrs[0], repeats=len(curves)))
    assert any(re.search(doubt, text) for text in found.doubts), found.doubts


@pytest.mark.parametrize(("steps", "is_told"), [(31, True), (32, False)])
def test_a_rate_that_grows_faster_than_the_loss_can_follow_is_told(steps, is_told):
    """Eight decades: measured on digits, a sweep of 20 suggests eleven times the best rate of a grid."""
    found = read([bert_like(0.0, points=steps)], Sweep(steps=steps, repeats=1))
    told = [doubt for doubt in found.doubts if "faster than the loss can follow" in doubt]
    assert bool(told) == is_told and all("Take 32 --steps or more" in doubt for doubt in told)


def test_the_running_mean_is_corrected_for_its_start():
    """By hand: .5 x 4 / .5 = 4; (.5 x 2 + .5 x 2) / .75 = 8/3."""
    np.testing.assert_allclose(smoothed(np.array([4.0, 2.0]), 0.5), [4, 8 / 3])
    np.testing.assert_allclose(smoothed(np.full(30, 3.0), 0.98), 3, rtol=1e-12)
    assert Sweep(steps=1000).smoothing == pytest.approx(0.98) and Sweep().smoothing == pytest.approx(0.8)


def test_a_sweep_is_over_once_its_mean_is_four_times_its_best():
    sweep = Sweep(steps=20)  # without smoothing: its mean looks back over one update
    assert sweep.smoothing == 0
    assert not sweep.has_risen(np.array([1.0, 0.5, 1.99]))
    assert sweep.has_risen(np.array([1.0, 0.5, 2.01]))
    assert not sweep.has_risen(np.array([1.0, -0.1, 0.15])), "a loss below zero: of the fall so far"
    assert sweep.has_risen(np.array([1.0, -0.1, 0.3]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 19}, "steps: got 19; expected at least 20"),
        ({"start": 0.0}, "start: got 0.0; expected above 0"),
        ({"start": 1e-3, "stop": 5e-3}, "stop: got 0.005; expected at least ten times the first rate"),
        ({"stop": float("inf")}, "stop: got inf"),
        ({"repeats": 0}, "repeats: got 0; expected at least 1"),
        ({"warm_head": -1}, "warm_head: got -1"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Sweep(**wrong)


LAYERS = [LayerGroup("embeddings", ("e",)), LayerGroup("layer.0", ("a",)), LayerGroup("head", ("h",))]
SIZES = {"e": 100, "a": 50, "h": 10}


def planned(strategy, schedule=WarmupLinear(warmup="10%"), *, lr=1e-4, head_lr=None):  # noqa: B008
    return make_plan(
        strategy,
        layers=LAYERS,
        new=["h"],
        schedule=schedule,
        optimizer=AdamW(lr=lr, head_lr=head_lr),
        total_steps=100,
        steps_per_epoch=10,
    )


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Full(), {"embeddings": 1, "layer.0": 1, "head": 30}),
        (Freeze(trainable=("head",)), {"head": 30}),
        (Discriminative(decay=0.5), {"embeddings": 0.25, "layer.0": 0.5, "head": 30}),
        (GradualUnfreeze(over="60%", decay=0.5), {"embeddings": 0.25, "layer.0": 0.5, "head": 30}),
        (LPFT(head_scale=0.1, schedule=WarmupLinear()), {"embeddings": 1, "layer.0": 1, "head": 3}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_ratios_of_the_largest_phase_are_swept(strategy, expected):
    """Unfreezing ends where the schedule is at 0.44: the ratios are those at its peak all the same."""
    peak = peak_of(planned(strategy, head_lr=3e-3), SIZES)
    assert peak.ratios == pytest.approx(expected)
    assert not peak.momenta


def test_the_momentum_is_that_of_the_schedule_at_its_peak():
    peak = peak_of(planned(Full(), OneCycle()), SIZES)
    assert peak.momenta["head"] == pytest.approx(0.85, abs=1e-3) and peak.ratios["head"] == pytest.approx(1, abs=1e-3)
    assert peak_of(planned(Full(), Constant()), SIZES).momenta == {}
