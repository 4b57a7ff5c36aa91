"""Fine-tune a ViT-class encoder to classify images; one function per strategy.

    finetune train vit_images                                    # offline: a small ViT on scikit-learn's digits
    finetune train vit_images --recipe gradual_unfreeze strategy.over=30%
    finetune train vit_images task.model=google/vit-base-patch16-224-in21k task.data=cifar10 task.augment=light
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/vit_images.py --recipe lora --config my.yaml

Accuracy in % on the test split, one seed (42), measured on a 2-core CPU. On digits (1,297 test examples) a difference
of one point may be chance, on clothing (372) one of three.

    recipe              trained    glyph ViT,    ViT-Tiny,    ViT-B,
                                   digits        clothing     CIFAR-10
    full                306,730    97.5          90.6 (a)
    freeze                1,162    93.1          88.7
    discriminative      306,730    97.1          89.5 (a)
    gradual_unfreeze    306,730    96.5          89.2 (a)
    lora                 43,978    97.2          90.9 (b)
    lp_ft               306,730    96.5
    freeze_out          306,730    97.5
    surgical             82,378    95.2
    plain_first         306,730    96.9
    scratch             306,730    66.0
    pixels + logistic regression   94.5

An empty cell was not measured. "trained" is for digits. The models are the package's own small ViT (pretrained on
printed letters by ``benchmarks/pretrain_glyph_vit.py``), timm's vit_tiny_patch16_224.augreg_in21k_ft_in1k and
google/vit-base-patch16-224-in21k; the commands, after ``finetune train vit_images --recipe NAME``:

    digits      (nothing more) or ``finetune demo``, which also gives the last row
    clothing    task.model=timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k task.augment=light batch_size=32
                task.data='{train: train, validation: validation, test: test}' length='1 epoch';
                (a) and optimizer.lr=1e-4 optimizer.head_lr=1e-3, (b) and optimizer.lr=5e-4 optimizer.head_lr=1e-3
    CIFAR-10    task.model=google/vit-base-patch16-224-in21k task.data=cifar10 task.augment=light batch_size=128
                length='5 epochs' optimizer.lr=5e-5 optimizer.head_lr=1e-3

Data: https://github.com/alexeygrigorev/clothing-dataset-small (CC0), https://huggingface.co/datasets/uoft-cs/cifar10;
digits come with scikit-learn.
"""

from __future__ import annotations

from dataclasses import replace

from finetune import (
    LPFT,
    AdamW,
    Curriculum,
    Discriminative,
    Freeze,
    FreezeOut,
    GradualUnfreeze,
    ImageClassification,
    LoRA,
    RunConfig,
    WarmupCosine,
    WarmupLinear,
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


def lp_ft() -> RunConfig:
    """A linear probe for half of the run, then every layer, each part with its own decay: Kumar et al. 2022."""
    decay = WarmupCosine(warmup="5%", floor=0.01)
    return replace(
        full(),
        strategy=LPFT(probe="50%", head_scale=0.1, probe_schedule=decay, schedule=decay),
        schedule=WarmupLinear(),  # of the run, which neither part asks
        optimizer=AdamW(lr=5e-4, head_lr=1e-2, weight_decay=0.05),
        output_dir="runs/vit_images-lp_ft",
    )


def freeze_out() -> RunConfig:
    """From half-way on the layers freeze one by one, the lowest first: Brock et al. 2017."""
    return replace(full(), strategy=FreezeOut(start="50%"), output_dir="runs/vit_images-freeze_out")


def surgical() -> RunConfig:
    """Only the first layers and the head: where the images differ and not the classes, Lee et al. 2023."""
    return replace(
        full(),
        strategy=Freeze(trainable=("embeddings", "layer.0", "head")),
        output_dir="runs/vit_images-surgical",
    )


def plain_first() -> RunConfig:
    """With a curriculum: images with few edges first, all of them from half-way."""
    return replace(
        full(),
        curriculum=Curriculum(difficulty="edge_density", pacing="linear", start=0.5, until="50%"),
        output_dir="runs/vit_images-plain_first",
    )


def scratch() -> RunConfig:
    """As full, from random weights: what pretraining is worth."""
    return replace(
        full(),
        task=ImageClassification(model="glyph_vit", data="digits", weights="scratch"),
        output_dir="runs/vit_images-scratch",
    )


if __name__ == "__main__":
    main(full, freeze, discriminative, gradual_unfreeze, lora, lp_ft, freeze_out, surgical, plain_first, scratch)
