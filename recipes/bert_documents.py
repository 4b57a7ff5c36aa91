r"""Fine-tune a BERT-class encoder on texts that are longer than it should read; one function per cut.

    finetune train bert_documents                      # offline: MiniLM on pages of Python's own docstrings
    finetune train bert_documents --recipe whole
    finetune train bert_documents task.model=google-bert/bert-base-uncased task.data=imdb task.max_length=512 \
        task.truncation.head=128
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/bert_documents.py --config my.yaml

Accuracy in % on the test split, one seed (42), measured on a CPU, all with a frozen encoder: a probe of what each cut
keeps. To train it all, also set a rate for it: ``strategy=full optimizer.lr=2e-4 optimizer.head_lr=1e-3``.

    recipe              tokens    MiniLM, pypages
    head_tail               64    68.9
    head                    64    68.9
    tail                    64    61.1
    whole                  512    85.6
    the most frequent chapter     19.4

The model is sentence-transformers/all-MiniLM-L6-v2; pypages are 240 pages of 250 words of docstrings of the Python
that runs it (3.11), with their manual chapter (13), and 180 to test on: differences of seven points may be chance. The
command: ``finetune train bert_documents --recipe NAME``.
"""

from __future__ import annotations

from dataclasses import replace

from finetune import (
    AdamW,
    Freeze,
    HeadTailTruncation,
    HeadTruncation,
    RunConfig,
    TailTruncation,
    TextClassification,
    WarmupLinear,
    main,
)


def _read(max_length: int, truncation: HeadTruncation | TailTruncation | HeadTailTruncation) -> TextClassification:
    return TextClassification(model="minilm", data="pypages", max_length=max_length, truncation=truncation)


def head_tail() -> RunConfig:
    """A quarter of what is read from the start of the text, the rest from its end: Sun et al. 2019, section 5.3.1."""
    return RunConfig(
        task=_read(64, HeadTailTruncation(head=16)),
        schedule=WarmupLinear(warmup="10%"),
        strategy=Freeze(trainable=("head",)),
        optimizer=AdamW(lr=3e-3, weight_decay=0.0),
        length="30 epochs",
        batch_size=16,
        order="bucketed",
        evaluate_every="10 epochs",
        output_dir="runs/bert_documents-head_tail",
    )


def head() -> RunConfig:
    """The first tokens only, as most tokenizers cut."""
    return replace(head_tail(), task=_read(64, HeadTruncation()), output_dir="runs/bert_documents-head")


def tail() -> RunConfig:
    """The last tokens only."""
    return replace(head_tail(), task=_read(64, TailTruncation()), output_dir="runs/bert_documents-tail")


def whole() -> RunConfig:
    """All of it, at several times the cost: what the others give away."""
    return replace(head_tail(), task=_read(512, HeadTruncation()), output_dir="runs/bert_documents-whole")


if __name__ == "__main__":
    main(head_tail, head, tail, whole)
