"""Fine-tune a BERT-class encoder to classify texts; one function per strategy.

    finetune train bert_text                                     # offline: MiniLM on the standard library's docstrings
    finetune train bert_text --recipe lora strategy.rank=16
    finetune train bert_text task.model=google-bert/bert-base-uncased task.data=sst2 batch_size=32 length='3 epochs'
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/bert_text.py --recipe lora --config my.yaml

Accuracy on the test split, mean of 3 seeds (lowest .. highest):

    recipe              trained     MiniLM on pydocs    MiniLM on banking77    BERT-base on SST-2
    full
    freeze
    discriminative
    gradual_unfreeze
    lora
    short_first
    scratch

An empty cell was not measured.
"""

from __future__ import annotations

from dataclasses import replace

from finetune import (
    AdamW,
    Curriculum,
    Discriminative,
    Freeze,
    GradualUnfreeze,
    LoRA,
    RunConfig,
    TextClassification,
    WarmupLinear,
    main,
)


def full() -> RunConfig:
    """Every layer trains: Devlin et al. 2019, appendix A.3; the head faster, as its weights are new."""
    return RunConfig(
        task=TextClassification(model="minilm", data="pydocs", max_length=48),
        schedule=WarmupLinear(warmup="10%"),
        optimizer=AdamW(lr=1e-4, head_lr=3e-3, weight_decay=0.01),
        length="8 epochs",
        batch_size=16,
        order="bucketed",
        evaluate_every="2 epochs",
        output_dir="runs/bert_text-full",
    )


def freeze() -> RunConfig:
    """A linear probe: the encoder stays as it is; the baseline that the others must beat."""
    return replace(
        full(),
        strategy=Freeze(trainable=("head",)),
        optimizer=AdamW(lr=1e-2, weight_decay=0.0),
        output_dir="runs/bert_text-freeze",
    )


def discriminative() -> RunConfig:
    """Learning rates fall by 0.95 per layer below the head: Sun et al. 2019, section 5.3.3."""
    return replace(full(), strategy=Discriminative(decay=0.95), output_dir="runs/bert_text-discriminative")


def gradual_unfreeze() -> RunConfig:
    """One more layer at equal intervals over the first half: Howard & Ruder 2018, section 3.3."""
    return replace(
        full(), strategy=GradualUnfreeze(over="50%", decay=0.95), output_dir="runs/bert_text-gradual_unfreeze"
    )


def lora() -> RunConfig:
    """Low-rank adapters on every linear layer of the encoder: Hu et al. 2022; the base stays frozen."""
    return replace(
        full(),
        strategy=LoRA(rank=8),
        optimizer=AdamW(lr=2e-3, head_lr=1e-2, weight_decay=0.01),
        output_dir="runs/bert_text-lora",
    )


def short_first() -> RunConfig:
    """As full, with a curriculum: short texts first, all of them from half-way (Platanios et al. 2019)."""
    return replace(
        full(),
        order="random",  # lengths are the curriculum's
        curriculum=Curriculum(difficulty="length", pacing="root", start=0.3, until="50%"),
        output_dir="runs/bert_text-short_first",
    )


def scratch() -> RunConfig:
    """As full, from random weights: what pretraining is worth."""
    return replace(
        full(),
        task=TextClassification(model="minilm", data="pydocs", max_length=48, weights="scratch"),
        output_dir="runs/bert_text-scratch",
    )


if __name__ == "__main__":
    main(full, freeze, discriminative, gradual_unfreeze, lora, short_first, scratch)
