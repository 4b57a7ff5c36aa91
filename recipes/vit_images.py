"""Fine-tune a ViT-class encoder to classify images; one function per strategy.

    finetune train vit_images                                    # offline: a small ViT on scikit-learn's digits
    finetune train vit_images --recipe gradual_unfreeze strategy.over=30%
    finetune train vit_images task.model=google/vit-base-patch16-224-in21k task.data=cifar10 task.augment=light
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/vit_images.py --recipe lora --config my.yaml

Accuracy on the test split, mean of 3 seeds (lowest .. highest):

    recipe              trained     glyph ViT on digits    ViT-Tiny on clothing    ViT-B on CIFAR-10
    full
    freeze
    discriminative
    gradual_unfreeze
    lora
    scratch

An empty cell was not measured.
"""

from __future__ import annotations

from dataclasses import replace

from finetune import (
    AdamW,
    Discriminative,
    Freeze,
    GradualUnfreeze,
    ImageClassification,
    LoRA,
    RunConfig,
    WarmupCosine,
    main,
)


def full() -> RunConfig:
    """Every layer trains, with half a cosine down to 1 % (Steiner et al. 2022 also decay by cosine)."""
    return RunConfig(
        task=ImageClassification(model="glyph_vit", data="digits"),
        schedule=WarmupCosine(warmup="10%", floor=0.01),
        optimizer=AdamW(lr=5e-4, head_lr=2e-3, weight_decay=0.05),
        length="20 epochs",
        batch_size=16,
        evaluate_every="5 epochs",
        output_dir="runs/vit_images-full",
    )


def freeze() -> RunConfig:
    """A linear probe: the encoder stays as it is; the baseline that the others must beat."""
    return replace(
        full(),
        strategy=Freeze(trainable=("head",)),
        optimizer=AdamW(lr=1e-2, weight_decay=0.0),
        output_dir="runs/vit_images-freeze",
    )


def discriminative() -> RunConfig:
    """Learning rates fall by 0.75 per layer below the head, as in BEiT (Bao et al. 2022) and MAE (He et al. 2022)."""
    return replace(full(), strategy=Discriminative(decay=0.75), output_dir="runs/vit_images-discriminative")


def gradual_unfreeze() -> RunConfig:
    """One more layer at equal intervals over the first half: Howard & Ruder 2018, section 3.3."""
    return replace(
        full(), strategy=GradualUnfreeze(over="50%", decay=0.75), output_dir="runs/vit_images-gradual_unfreeze"
    )


def lora() -> RunConfig:
    """Low-rank adapters on every linear layer of the encoder: Hu et al. 2022; the base stays frozen."""
    return replace(
        full(),
        strategy=LoRA(rank=8),
        optimizer=AdamW(lr=2e-3, head_lr=2e-3, weight_decay=0.05),
        output_dir="runs/vit_images-lora",
    )


def scratch() -> RunConfig:
    """As full, from random weights: what pretraining is worth."""
    return replace(
        full(),
        task=ImageClassification(model="glyph_vit", data="digits", weights="scratch"),
        output_dir="runs/vit_images-scratch",
    )


if __name__ == "__main__":
    main(full, freeze, discriminative, gradual_unfreeze, lora, scratch)
