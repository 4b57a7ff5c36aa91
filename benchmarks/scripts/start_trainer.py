"""The same with ``transformers.Trainer``, as ``run_glue.py`` sets it up."""

from __future__ import annotations

import sys
import tempfile
import time

from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class FirstUpdate(TrainerCallback):
    """Says when the second update begins."""

    def on_step_begin(self, args, state, control, **kwargs):
        """Before every update."""
        if state.global_step == 1:
            print("first step done at", time.time(), flush=True)


if __name__ == "__main__":
    source, train, validation, batch_size = sys.argv[1:]
    data = load_dataset("csv", data_files={"train": train, "validation": validation})
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForSequenceClassification.from_pretrained(source)

    def encode(batch):
        """Ids of the texts, and the numbers of the classes."""
        encoded = tokenizer(batch["text"], truncation=True, max_length=128)
        return {**encoded, "labels": [model.config.label2id[label] for label in batch["label"]]}

    data = data.map(encode, batched=True, remove_columns=["text", "label"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            TrainingArguments(
                folder,
                max_steps=2,
                per_device_train_batch_size=int(batch_size),
                learning_rate=2e-5,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=[FirstUpdate()],
        )
        trainer.train()
