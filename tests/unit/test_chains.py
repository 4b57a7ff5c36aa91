"""Which strategies may be the base of which, and that every other pair is refused when it is made."""

from __future__ import annotations

import pytest

from finetune import RunConfig, TextClassification
from finetune.config import dump, resolve
from finetune.errors import ConfigError
from finetune.strategies import (
    BitFit,
    Discriminative,
    Freeze,
    FreezeOut,
    GradualUnfreeze,
    LoRA,
    Mixout,
    NormTuning,
    Peft,
    Reinitialised,
)
from finetune.strategies.chains import without_effect

TASK = TextClassification(model="some/model", data="pydocs")


def ia3(**fields):
    return Peft(peft_type="ia3", **fields)


REFUSED = [
    (LoRA, LoRA, "one set of adapters"),
    (LoRA, ia3, "one set of adapters"),
    (ia3, LoRA, "one set of adapters"),
    (LoRA, BitFit, "saved without its base"),
    (BitFit, LoRA, "saved without its base"),
    (NormTuning, ia3, "saved without its base"),
    (LoRA, Mixout, "stay as they are"),
    (Mixout, ia3, "stay as they are"),
    (LoRA, Reinitialised, "would be lost"),
    (Reinitialised, LoRA, "would be lost"),
    (BitFit, NormTuning, "both say which weights train"),
    (BitFit, Mixout, "none of them would train"),
    (Mixout, NormTuning, "none of them would train"),
    (Mixout, Mixout, "once is enough"),
    (Reinitialised, Reinitialised, "once is enough"),
]


@pytest.mark.parametrize(("upper", "lower", "why"), REFUSED)
def test_what_does_not_go_together_is_refused_at_any_depth(upper, lower, why):
    with pytest.raises(ValueError, match=f"cannot be the base of.*{why}"):
        upper(base=lower())
    with pytest.raises(ValueError, match=f"cannot be the base of.*{why}"):
        upper(base=Discriminative(base=lower()))


@pytest.mark.parametrize(
    "strategy",
    [
        LoRA(base=GradualUnfreeze(base=Discriminative())),
        Mixout(base=Reinitialised(base=Discriminative())),
        Reinitialised(base=Mixout()),
        BitFit(base=Reinitialised()),
        Discriminative(base=NormTuning()),
        GradualUnfreeze(base=Mixout(base=Discriminative())),
        LoRA(variant="dora", lr_ratio=16.0, ranks={"query": 4, "value": 2}),
        Peft(peft_type="VERA", settings={"r": 4, "d_initial": 0.5}, targets=("query",), base=Discriminative()),
    ],
)
def test_what_goes_together_is_written_and_read_as_yaml(strategy, tmp_path):
    config = RunConfig(TASK, strategy=strategy)
    (tmp_path / "config.yaml").write_text(dump(config))
    assert resolve(None, [tmp_path / "config.yaml"], []) == config


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        (LoRA(base=Freeze()), ["strategy: lora without effect"]),
        (Discriminative(base=GradualUnfreeze(base=Freeze())), ["strategy: disc", "strategy.base: gradual"]),
        (FreezeOut(base=ia3(base=Freeze())), ["strategy: freeze_out", "strategy.base: peft"]),
        (BitFit(base=Freeze()), []),  # of a pooler in the head it trains the biases alone
        (Freeze(), []),
    ],
)
def test_what_acts_below_the_head_has_no_effect_where_the_head_trains_alone(strategy, told):
    found = without_effect(strategy, {"head"})
    assert len(found) == len(told) and all(map(str.startswith, found, told))
    assert without_effect(strategy, {"head", "layer.3.norms"}) == without_effect(strategy, {"norms"}) == []


def test_a_refusal_names_its_place_in_the_configuration():
    with pytest.raises(ConfigError, match=r"(?s)strategy.*mixout cannot be the base of lora"):
        resolve(RunConfig(TASK), [], ["strategy={name: lora, base: {name: discriminative, base: mixout}}"])


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("strategy={name: lora, ranks: {query: 0}}", "ranks"),
        ("strategy={name: lora, ranks: 4}", "strategy.ranks"),
        ("strategy={name: lora, lr_ratio: -1}", "strategy.lr_ratio"),
        ("strategy={name: mixout, probability: 1.0}", "strategy.probability"),
        ("strategy={name: reinitialised, blocks: -1}", "strategy.blocks"),
        ("strategy=peft", "strategy.peft_type"),
        ("strategy={name: peft, peft_type: lora}", "use the strategy lora"),
        ("strategy={name: peft, peft_type: ia3, settings: {target_modules: x}}", "'target_modules' follow"),
        ("task={name: l2_sp, alpha: 0}", "task.alpha"),
    ],
)
def test_a_wrong_field_is_one_message(words, fault):
    with pytest.raises(ConfigError, match=fault):
        resolve(RunConfig(TASK), [], [words])
