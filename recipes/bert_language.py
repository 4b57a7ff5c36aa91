"""Let a BERT-class encoder go on learning a language, from texts without labels, before it learns a task.

    finetune train bert_language                       # offline: MiniLM on the standard library's docstrings
    finetune train bert_language task.model=google-bert/bert-base-uncased task.data=imdb task.max_length=512
    finetune train bert_text task.model=runs/bert_language-adapt/model         # what it is for
    accelerate launch --config_file accelerate_configs/ddp.yaml recipes/bert_language.py --config my.yaml

Several stages in one configuration are in docs/stages.md.

Perplexity of hidden tokens on the test split, one seed (42).

    recipe              trained       MiniLM, pydocs
    adapt               22,744,506    225.2
    adapt_words         22,744,506    156.3   (of words: not comparable with adapt's)

The model is sentence-transformers/all-MiniLM-L6-v2, whose checkpoint has no head that
names tokens, so a new one is trained; pydocs are 208 docstrings of the Python that runs it.
"""

from __future__ import annotations

from dataclasses import replace

from finetune import AdamW, MaskedLanguage, RunConfig, WarmupLinear, main


def adapt() -> RunConfig:
    """Hidden tokens of the task's own texts, 15 % of them: task-adaptive, after Gururangan et al. 2020, section 4."""
    return RunConfig(
        task=MaskedLanguage(model="minilm", data="pydocs", max_length=48),
        schedule=WarmupLinear(warmup="10%"),
        optimizer=AdamW(lr=1e-4, head_lr=1e-3, weight_decay=0.01),
        length="20 epochs",
        batch_size=16,
        order="bucketed",
        evaluate_every="5 epochs",
        output_dir="runs/bert_language-adapt",
    )


def adapt_words() -> RunConfig:
    """As adapt, with whole words hidden: Cui et al. 2019, section 2."""
    return replace(
        adapt(),
        task=MaskedLanguage(model="minilm", data="pydocs", max_length=48, unit="word"),
        output_dir="runs/bert_language-adapt_words",
    )


if __name__ == "__main__":
    main(adapt, adapt_words)
