"""Fine-tune a BERT-class encoder on pairs of texts, for a class or a number; one function per strategy.

    finetune train bert_pairs                          # offline: MiniLM, does this docstring belong to this function?
    finetune train bert_pairs --recipe freeze
    finetune train bert_pairs task.data=mrpc task.model=google-bert/bert-base-uncased
    finetune train bert_pairs task='{name: text_regression, model: minilm, data: stsb}'       # a number
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/bert_pairs.py --config my.yaml

Accuracy in % on the test split, one seed (42), measured on a CPU.

    recipe              trained       MiniLM, pypairs
    full                22,713,986    82.0
    freeze                 148,610    55.3
    always the more frequent answer   53.5

The model is sentence-transformers/all-MiniLM-L6-v2; pypairs are 800 pairs of a
function's name and parameters and a docstring of the Python that runs it (3.11), half of them of another function, and
600 to test on: differences of three points may be chance. The command: ``finetune train bert_pairs --recipe NAME``.
"""

from __future__ import annotations

from dataclasses import replace

from finetune import AdamW, Freeze, RunConfig, TextClassification, WarmupLinear, main


def full() -> RunConfig:
    """Every layer trains, on both texts in one input: Devlin et al. 2019, section 4.1."""
    return RunConfig(
        task=TextClassification(model="minilm", data="pypairs", max_length=128),
        schedule=WarmupLinear(warmup="10%"),
        optimizer=AdamW(lr=2e-4, head_lr=1e-3, weight_decay=0.01),
        length="8 epochs",
        batch_size=16,
        order="bucketed",
        evaluate_every="2 epochs",
        output_dir="runs/bert_pairs-full",
    )


def freeze() -> RunConfig:
    """A probe: the encoder stays as it is; the baseline that the others must beat."""
    return replace(
        full(),
        strategy=Freeze(trainable=("head",)),
        optimizer=AdamW(lr=3e-3, weight_decay=0.0),
        output_dir="runs/bert_pairs-freeze",
    )


if __name__ == "__main__":
    main(full, freeze)
