"""Model shapes, built from configs with a fixed seed: throughput needs no download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LABELS = ("negative", "positive")
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """An encoder: BERT where ``timm_name`` is empty, else a ViT of timm.

    Args:
        width: Of the hidden states.
        layers: Blocks of the trunk.
        heads: Of attention.
        inner: Width of the feed-forward layers.
        vocabulary: Tokens that it embeds; BERT uncased has 30,522.
        timm_name: The architecture in timm.
        image_size: In pixels.
        patch_size: In pixels.
    """

    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int = 30_522
    timm_name: str = ""
    image_size: int = 224
    patch_size: int = 16

    @property
    def is_image(self) -> bool:
        """Whether it looks at images."""
        return bool(self.timm_name)

    @property
    def tokens_per_image(self) -> int:
        """Patches and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1

    def forward_flops(self, lengths: Sequence[int]) -> float:
        """Of the matrix products of one forward, padding not counted.

        A block multiplies each token with 4 w^2 + 2 w f weights (2 operations each), and attention adds 4 w s for
        each of s tokens; images add the patch embedding. Heads and embeddings are left out.
        """
        weights = self.layers * (4 * self.width**2 + 2 * self.width * self.inner)
        patches = (self.tokens_per_image - 1) * 3 * self.patch_size**2 * self.width if self.is_image else 0
        return sum(2 * weights * s + 4 * self.layers * self.width * s * s + 2 * patches for s in map(float, lengths))


SHAPES = {
    "minilm": Shape(width=384, layers=6, heads=12, inner=1536),
    "minilm-l12": Shape(width=384, layers=12, heads=12, inner=1536),
    "bert-base": Shape(width=768, layers=12, heads=12, inner=3072),
    "bert-tiny": Shape(width=128, layers=2, heads=2, inner=512),
    "bert-nano": Shape(width=32, layers=2, heads=2, inner=64, vocabulary=1000),  # for tests of the program itself
    "vit-s": Shape(width=384, layers=12, heads=6, inner=1536, timm_name="vit_small_patch16_224"),
    "vit-b": Shape(width=768, layers=12, heads=12, inner=3072, timm_name="vit_base_patch16_224"),
    "vit-nano": Shape(
        width=192, layers=2, heads=3, inner=768, timm_name="vit_tiny_patch16_224", image_size=32, patch_size=8
    ),
}


def save(shape: Shape, folder: Path, *, dropout: bool) -> None:
    """A model folder as its own library writes it, the same weights for the same shape.

    Args:
        shape: Of the model.
        folder: To write to.
        dropout: Whether BERT's usual 0.1 is in its config.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        if shape.is_image:
            _save_vit(shape, folder)
        else:
            _save_bert(shape, folder, dropout=dropout)


def _save_bert(shape: Shape, folder: Path, *, dropout: bool) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    rate = 0.1 if dropout else 0.0
    config = BertConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
        hidden_dropout_prob=rate,
        attention_probs_dropout_prob=rate,
        id2label=dict(enumerate(LABELS)),
        label2id={name: number for number, name in enumerate(LABELS)},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer(shape.vocabulary).save_pretrained(folder)


def _save_vit(shape: Shape, folder: Path) -> None:
    import timm
    from timm.models import save_for_hf

    size: dict[str, Any] = {}
    if shape.image_size != 224:
        size = {"img_size": shape.image_size, "patch_size": shape.patch_size, "depth": shape.layers}
    model = timm.create_model(shape.timm_name, num_classes=len(LABELS), **size)
    pretrained = {**model.pretrained_cfg, "num_classes": len(LABELS), "crop_pct": 1.0}
    pretrained["input_size"] = (3, shape.image_size, shape.image_size)
    config = {"pretrained_cfg": pretrained, "label_names": list(LABELS), "model_args": size}
    save_for_hf(model, folder, model_config=config, safe_serialization=True)


def word(number: int) -> str:
    """The word that is token ``number``."""
    return f"w{number:05d}"


def tokenizer(vocabulary: int) -> Any:
    """Every word is one token, so that a text of so many words has exactly the length that was drawn."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    words = {name: number for number, name in enumerate(special)}
    words |= {word(number): number for number in range(len(special), vocabulary)}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    )
