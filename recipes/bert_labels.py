"""Fine-tune a BERT-class encoder to give a text any number of labels; one function per strategy.

    finetune train bert_labels                         # offline: MiniLM on texts joined of Python's own docstrings
    finetune train bert_labels task.positive_weights=balanced
    finetune train bert_labels task.data='{train: train.csv, validation: 10%, label: topics, separator: "|"}'
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/bert_labels.py --config my.yaml

Micro F1 and mean average precision in % on the test split, one seed (42), measured on a CPU.

    recipe              trained       MiniLM, pytopics
    full                22,718,221    52.0    54.3
    freeze                 152,845    45.5    51.3
    all labels for every text         25.4    14.5

The model is sentence-transformers/all-MiniLM-L6-v2; pytopics are 324 texts, each of
one to three docstrings of the Python that runs it (3.11), with the manual chapters they are of (13), and 423 to test
on: differences of three points may be chance. The command: ``finetune train bert_labels --recipe NAME``.
"""

from __future__ import annotations

from dataclasses import replace

from finetune import AdamW, Freeze, RunConfig, TextMultiLabel, WarmupLinear, main


def full() -> RunConfig:
    """Every layer trains, with a sigmoid for each label; the head faster, as its weights are new."""
    return RunConfig(
        task=TextMultiLabel(model="minilm", data="pytopics", max_length=128),
        schedule=WarmupLinear(warmup="10%"),
        optimizer=AdamW(lr=2e-4, head_lr=3e-3, weight_decay=0.01),
        length="8 epochs",
        batch_size=16,
        order="bucketed",
        evaluate_every="4 epochs",
        output_dir="runs/bert_labels-full",
    )


def freeze() -> RunConfig:
    """A probe: the encoder stays as it is; the baseline that the others must beat."""
    return replace(
        full(),
        strategy=Freeze(trainable=("head",)),
        optimizer=AdamW(lr=3e-3, weight_decay=0.0),
        output_dir="runs/bert_labels-freeze",
    )


if __name__ == "__main__":
    main(full, freeze)
