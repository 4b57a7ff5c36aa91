"""The pieces of the scripts that reproduce signs: draws, differences, the results' file, every arm on 4 updates."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.reproductions import (
    label_noise,
    last_layer_vs_gradual,
    layer_decay_tables,
    lora_within_a_point,
    lp_ft,
    lr_find,
    signs,
)
from finetune import Curriculum, RunConfig, plan_run


@pytest.fixture(scope="module")
def course() -> signs.Course:
    """Digits, cut to what shows that an arm runs."""
    found = signs.on_digits(per_class=2, wrong=0.4)

    def task(seed: int):
        from dataclasses import replace

        whole = found.task(seed)
        few = {name: getattr(whole.data, name).select(range(0, 300, 15)) for name in ("validation", "test")}
        return replace(whole, data=replace(whole.data, **few))

    return signs.Course(found.name, task, {**found.settings, "length": "4 steps", "batch_size": 5})


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_as_many_labels_are_wrong_as_were_asked_for(share):
    labels = [str(number % 10) for number in range(200)]
    found = signs.with_wrong(labels, share=share, seed=3)
    assert sum(a != b for a, b in zip(found, labels, strict=True)) == 200 * share
    assert set(found) <= set(labels) and found == signs.with_wrong(labels, share=share, seed=3)
    assert share in (0.0, 1.0) or found != signs.with_wrong(labels, share=share, seed=4)


def test_wrong_labels_are_in_the_training_split_alone():
    wrong, right = (signs.digits(1, per_class=5, wrong=share).data for share in (0.4, 0.0))
    assert sum(a != b for a, b in zip(wrong.train["label"], right.train["label"], strict=True)) == 20
    for split in ("validation", "test"):
        assert getattr(wrong, split)["label"] == getattr(right, split)["label"]


def test_differences_are_paired_and_their_interval_is_students():
    found = signs.paired([90.0, 80.0, 70.0], [89.0, 78.0, 67.0])  # 1, 2, 3: sd 1, t(0.975, 2) = 4.3027
    assert found.mean == 2.0
    assert (found.low, found.high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)
    assert signs.paired([90.0], [80.0]) == (10.0, -math.inf, math.inf)


def test_a_section_is_replaced_and_the_others_stay(tmp_path):
    file = tmp_path / "RESULTS.md"
    signs.write("lp_ft", "first\n\n| a | b |", file)
    signs.write("of_another", "stays", file)
    signs.write("label_noise", "second", file)
    signs.write("lp_ft", "third", file)
    text = file.read_text()
    assert "first" not in text and text.count("# Signs of papers") == 1
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## label_noise",
        "## lp_ft",
        "## of_another",
    ]
    signs.write("lp_ft", "third", file)
    assert file.read_text() == text


def test_every_arm_of_label_noise_runs(course):
    scores = label_noise.measured(course, [1])
    orders = (label_noise.CONTROL, label_noise.LOSS, label_noise.MAP)
    paced = [f"{order}; {pacing}" for pacing in label_noise.PACINGS for order in orders]
    assert list(scores) == [label_noise.PLAIN, *paced, label_noise.SUPER]
    assert all(0 <= score <= 100 for (score,) in scores.values())
    of_texts = label_noise.arms(signs.docstrings(1), "run")
    assert [name.partition(";")[0] for name in of_texts] == [
        *[label_noise.CONTROL, label_noise.LENGTH] * 2, label_noise.SUPER
    ]  # fmt: skip
    text = label_noise.composed({share: [scores, scores] for share in label_noise.SHARES})
    assert text.count("| n |") == 4 and text.count("eproduced**") == 20


def test_the_first_pacing_of_label_noise_is_the_default():
    of_texts = label_noise.arms(signs.docstrings(1), "run")
    early, late = (f"{label_noise.LENGTH}; {pacing}" for pacing in label_noise.PACINGS)
    assert of_texts[early]["curriculum"] == Curriculum()
    assert of_texts[late]["curriculum"] != Curriculum()


@pytest.mark.parametrize(
    ("clean", "noisy", "expected"),
    [
        ([90.0, 91.0, 92.0], [80.0, 81.0, 82.5], ["Reproduced", "Reproduced"]),
        ([85.0, 86.0, 87.0], [70.0, 71.0, 72.0], ["Not reproduced", "Not reproduced"]),
        ([90.0, 91.0, 92.0], [60.0, 72.0, 85.0], ["Reproduced", "Not reproduced"]),  # higher, and by chance
        ([89.5, 89.5, 89.5], [80.0, 81.0, 82.5], ["Not reproduced", "Reproduced"]),  # as good as plain alone
    ],
)
def test_a_gain_is_one_beside_the_control_arm(clean, noisy, expected):
    pacing, other = label_noise.PACINGS
    arm, beside, apart = f"{label_noise.MAP}; {pacing}", *(f"{label_noise.CONTROL}; {of}" for of in (pacing, other))
    control = {label_noise.PLAIN: [90.0] * 3, beside: [90.0, 91.0, 92.0], apart: [99.0] * 3}
    noise = {label_noise.PLAIN: [10.0] * 3, beside: [70.0, 71.0, 72.0], apart: [99.0] * 3}
    lines = label_noise.signs(control | {arm: clean}, noise | {arm: noisy})
    assert [line.split("**")[1] for line in lines] == expected


def test_lp_ft_scores_shifts_and_drift(course):
    text = lp_ft.section([1], course, rates=(1e-3,))
    assert all(f"{course.name}, {name}" in text for name in lp_ft.SHIFTS)
    assert lp_ft.run(course, lp_ft.PROBE, 1e-3, 1).drift == 0.0
    moved = lp_ft.run(course, lp_ft.FULL, 1e-3, 1)
    assert moved.drift > 0 and moved.test[lp_ft.OUT] == pytest.approx(
        np.mean([moved.test[name] for name in lp_ft.SHIFTS])
    )


def test_our_forward_scores_as_the_run_does(course):
    task = course.task(1)
    result = signs.trained(task, course.settings, seed=1)
    images, labels = lp_ft._test_of(task)
    found = 100 * float((lp_ft._forward(result.model, images)[0] == labels).float().mean())
    assert found == pytest.approx(signs.accuracy(result))


@pytest.mark.parametrize("name", lp_ft.SHIFTS)
def test_a_shift_changes_the_image_and_is_the_same_each_time(course, name):
    image = course.task(1).data.test[0]["image"].convert("RGB")
    once, again = (np.asarray(lp_ft.SHIFTS[name](image, 1)) for _ in range(2))
    assert once.shape == np.asarray(image).shape and np.array_equal(once, again)
    assert not np.array_equal(once, np.asarray(image))


def test_every_arm_of_unfreezing_and_lora_runs(course):
    long = course._replace(settings={**course.settings, "length": "20 steps"})  # a step for each of its phases
    text = last_layer_vs_gradual.section([1], [(long, 0.75)])
    assert all(f"| {arm} |" in text for arm in last_layer_vs_gradual.arms(0.75))
    text = lora_within_a_point.section([1], [(course, 2e-3, 2e-3)])
    assert "| 100.0% |" in text and text.count("roduced**") == 2


@pytest.mark.parametrize("arm", last_layer_vs_gradual.arms(0.95))
def test_arms_on_texts_are_what_can_be_planned(arm):
    course = signs.on_docstrings(per_class=8)
    plan = plan_run(RunConfig(course.task(1), **{**course.settings, **last_layer_vs_gradual.arms(0.95)[arm]}))
    assert plan["total_steps"] == 42


def test_layer_decay_is_as_published():
    text = layer_decay_tables.section([])
    assert text.count("**Reproduced**") == 7 and "**Not" not in text


def test_a_case_of_lr_find_alone_leaves_the_rows_of_the_others(tmp_path):
    found = {"suggestion": 1.1e-3, "doubts": (), "best": 1e-3, "optima": [3e-4, 1e-3], "factor": 1.1,
             "grid": {"0.0003": [0.8], "0.001": [0.9, 0.94]}, "is_right": True}  # fmt: skip
    names = [case.name for case in lr_find.CASES]
    rows = [lr_find.row({**found, "name": name}) for name in names[:3]]
    assert rows[0] == [names[0], "1.1e-03", "0.001, 0.0003", "1.1", "yes", "0.0003 80.0  0.001 92.0"]
    file = tmp_path / "RESULTS.md"
    signs.write("lr_find", lr_find.section(rows, signs.section_of("lr_find", file)), file)
    before = signs.section_of("lr_find", file)
    assert "**Reproduced**" in before and "3 of 3 cases" in before
    assert f"Not measured: {names[3]}; {names[4]};" in before
    wrong = {**found, "name": names[3], "factor": 9.0, "is_right": False}
    text = lr_find.section([lr_find.row(wrong)], before)
    assert [line.split(" | ")[0][2:] for line in text.splitlines() if line.startswith("| ")][2:] == names[:4]
    assert "**Not reproduced**" in text and "3 of 4 cases" in text
    honest = lr_find.section([lr_find.row({**wrong, "doubts": ("it says so",)})], before)
    assert "**Reproduced**" in honest and "of the others 1 said so" in honest
