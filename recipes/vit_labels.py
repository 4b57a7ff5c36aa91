r"""Fine-tune a ViT-class encoder to give an image any number of labels; one function per strategy.

    finetune train vit_labels                          # offline: a small ViT on pictures of one to three digits
    finetune train vit_labels --recipe lora task.positive_weights=balanced
    finetune train vit_labels task.model=google/vit-base-patch16-224-in21k task.image_size=224 \
        task.data='{train: train.csv, validation: 10%, image: file, label: [cat, dog, bird]}'
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/vit_labels.py --config my.yaml

Mean average precision and micro F1 in % on the test split, one seed (42), measured on a CPU.

    recipe              trained    glyph ViT, digit_sets
    full                311,338    74.6    64.2
    freeze                1,162    39.2    27.3
    lora                 43,978    65.5    58.0
    all labels for every picture   19.2    32.3

The model is the package's own small ViT, pretrained on single printed letters; digit_sets are 400 pictures of
scikit-learn's handwritten digits, one to three in the quarters of a square, and 350 to test on. The command:
``finetune train vit_labels --recipe NAME``.
"""

from __future__ import annotations

from dataclasses import replace

from finetune import AdamW, Freeze, ImageMultiLabel, LoRA, RunConfig, WarmupCosine, main


def full() -> RunConfig:
    """Every layer trains, with a sigmoid for each label; positions are resampled for pictures of twice the side."""
    return RunConfig(
        task=ImageMultiLabel(model="glyph_vit", data="digit_sets", image_size=32),
        schedule=WarmupCosine(warmup="10%", floor=0.01),
        optimizer=AdamW(lr=1e-3, head_lr=3e-3, weight_decay=0.05),
        length="40 epochs",
        batch_size=16,
        evaluate_every="10 epochs",
        output_dir="runs/vit_labels-full",
    )


def freeze() -> RunConfig:
    """A probe: the encoder stays as it is; the baseline that the others must beat."""
    return replace(
        full(),
        strategy=Freeze(trainable=("head",)),
        optimizer=AdamW(lr=1e-2, weight_decay=0.0),
        output_dir="runs/vit_labels-freeze",
    )


def lora() -> RunConfig:
    """Low-rank adapters on every linear layer of the encoder: Hu et al. 2022; the base stays frozen."""
    return replace(
        full(),
        strategy=LoRA(rank=8),
        optimizer=AdamW(lr=5e-3, head_lr=5e-3, weight_decay=0.0),
        output_dir="runs/vit_labels-lora",
    )


if __name__ == "__main__":
    main(full, freeze, lora)
