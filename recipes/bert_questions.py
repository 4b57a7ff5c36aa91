"""Fine-tune a BERT-class encoder to find the answer to a question in a text; one function per strategy.

    finetune train bert_questions                      # offline: MiniLM on questions about Python's own docstrings
    finetune train bert_questions --recipe freeze
    finetune train bert_questions task.model=google-bert/bert-base-uncased task.data=squad task.max_length=384
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/bert_questions.py --config my.yaml

F1 of answers and exact matches in % on the test split, one seed (42), measured on a CPU.

    recipe              trained       MiniLM, pyquestions
    full                22,566,146    95.1    89.5
    freeze                     770    43.1    12.0
    the first sentence as the answer  46.3     0.0

The model is sentence-transformers/all-MiniLM-L6-v2. pyquestions are a toy: 345 questions of three kinds about 300
docstrings of the Python that runs it (3.11), and 133 about 120 others to test on, made by patterns that a model finds
out easily. The command: ``finetune train bert_questions --recipe NAME``.
"""

from __future__ import annotations

from dataclasses import replace

from finetune import AdamW, Freeze, QuestionAnswering, RunConfig, WarmupLinear, main


def full() -> RunConfig:
    """Every layer trains: Devlin et al. 2019, section 4.2; the head faster, as its weights are new."""
    return RunConfig(
        task=QuestionAnswering(model="minilm", data="pyquestions", max_length=128, overlap=32),
        schedule=WarmupLinear(warmup="10%"),
        optimizer=AdamW(lr=2e-4, head_lr=3e-3, weight_decay=0.01),
        length="5 epochs",
        batch_size=16,
        order="bucketed",
        evaluate_every="1 epoch",
        output_dir="runs/bert_questions-full",
    )


def freeze() -> RunConfig:
    """A linear probe on every token: the encoder stays as it is; the baseline that the others must beat."""
    return replace(
        full(),
        strategy=Freeze(trainable=("head",)),
        optimizer=AdamW(lr=1e-2, weight_decay=0.0),
        output_dir="runs/bert_questions-freeze",
    )


if __name__ == "__main__":
    main(full, freeze)
