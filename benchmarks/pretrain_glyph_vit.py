"""Make the small ViT that ships in finetune/assets/glyph_vit: classify drawn letters, nothing else.

    python benchmarks/pretrain_glyph_vit.py

2000 steps of 128 letters on one thread of a 2-core x86 CPU: 222 CPU seconds, held-out letters 90.4 %, 0.63 MB.

What it is worth on scikit-learn's digits (UCI optical recognition of handwritten digits,
https://archive.ics.uci.edu/dataset/80): accuracy on the test split of finetune.data.digits.few_shot, mean and
min..max of its seeds 0, 1, 2. AdamW, batches of 32, 30 epochs, 10 % warm-up, linear decay; learning rates (head
3e-3 and body 3e-4; probe 3e-2; scratch 1e-3) chosen on the validation split at 20 per class.

    images per class                    5                    20
    every layer            89.4 (88.0..91.6)    95.2 (94.4..96.1)
    frozen, linear head    87.2 (85.9..89.1)    92.2 (91.9..92.4)
    same ViT from scratch  34.0 (32.8..35.4)    77.7 (76.9..79.2)
    logistic regression
      on the pixels        84.8 (83.2..87.7)    92.9 (91.5..94.5)
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.data.digits import IMAGE_SIZE, MAX_LEVEL
from finetune.data.glyphs import classes, draw
from finetune.models.glyph_vit import MEAN, STD
from finetune.randomness import keyed

SEED = 0
BATCH = 128
PEAK_LR = 3e-3
WARMUP = 200  # steps
ASSET = Path(__file__).resolve().parents[1] / "finetune" / "assets" / "glyph_vit"


def new_model() -> nn.Module:
    """A ViT of 4 layers and width 96 on 4 x 4 patches: 309 640 parameters, 0.6 MB in fp16."""
    from transformers import ViTConfig, ViTForImageClassification

    names = dict(enumerate(classes()))
    config = ViTConfig(
        image_size=IMAGE_SIZE,
        patch_size=4,
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=192,
        layer_norm_eps=1e-6,  # timm's, so that both libraries compute the same
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )
    with keyed(SEED, "weights"):
        return ViTForImageClassification(config)


def pixel_values(levels: Tensor) -> Tensor:
    """Grids of ink (batch, 8, 8) as the image processor would give them, (batch, 3, 16, 16)."""
    images = F.interpolate(levels.unsqueeze(1) / MAX_LEVEL, size=IMAGE_SIZE, mode="bilinear", align_corners=False)
    return ((images - MEAN) / STD).expand(-1, 3, -1, -1)


def learning_rate(step: int, *, steps: int) -> float:
    """Linear warm-up, then cosine to zero."""
    return PEAK_LR * min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def pretrain(model: nn.Module, *, steps: int) -> None:
    """Every batch is drawn anew: no letter is seen twice."""
    optimizer = torch.optim.AdamW(
        [
            {"params": [each for each in model.parameters() if each.ndim > 1], "weight_decay": 0.05},
            {"params": [each for each in model.parameters() if each.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    began = time.process_time()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps=steps)
        glyphs = draw(BATCH, seed=SEED, batch=step)
        logits = model(pixel_values(glyphs.levels)).logits
        loss = F.cross_entropy(logits, glyphs.labels, label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 500 == 0 or step + 1 == steps:
            seconds = time.process_time() - began  # of one core, whatever else the machine does
            print(
                f"step {step + 1:5d}  loss {loss.item():.3f}  held-out {accuracy(model):.1%}  {seconds:.0f} CPU s",
                flush=True,
            )


@torch.no_grad()
def accuracy(model: nn.Module, *, count: int = 2000) -> float:
    """Share of right answers on letters drawn from another stream than the training's."""
    glyphs = draw(count, seed=SEED, purpose="held-out glyphs")
    return (model(pixel_values(glyphs.levels)).logits.argmax(dim=-1) == glyphs.labels).float().mean().item()


def save(model: nn.Module, folder: Path) -> None:
    """Weights in fp16, which ``from_pretrained`` opens in fp32, beside the image processor."""
    from transformers import ViTImageProcessor

    config = folder / "config.json"
    model.half().save_pretrained(folder)
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
    processor = ViTImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
        do_convert_rgb=True,
    )
    processor.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written for its owner only, and wheels keep that


def main() -> None:
    """Pre-train, print what was reached, and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=ASSET)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order: the same weights on every run
    model = new_model().train()
    print(f"{sum(each.numel() for each in model.parameters()):,} parameters, {len(classes())} classes of letters")
    pretrain(model, steps=arguments.steps)
    save(model, arguments.output)


if __name__ == "__main__":
    main()
