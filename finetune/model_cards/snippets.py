"""Code that opens a published model with its plain library; each snippet is run by a test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .card import CardFacts

PLACEHOLDER = "your-name/your-model"  # until the repository is known

_PIPELINE = """\
from transformers import pipeline

classify = pipeline({task}, model={repo})
print(classify({example}))"""

_LOGITS = """\
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({repo})
model = AutoModelForSequenceClassification.from_pretrained({repo})
with torch.inference_mode():
    print(model(**tokenizer("a text of your own", return_tensors="pt", truncation=True)).logits)"""

_TIMM = """\
import timm
import torch
from PIL import Image

model = timm.create_model({source}, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.inference_mode():
    logits = model(transform(Image.open({example}).convert("RGB"))[None])
print(model.pretrained_cfg["label_names"][int(logits.argmax())])"""

_PEFT_TEXT = """\
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({repo})
base = AutoModelForSequenceClassification.from_pretrained({base}, num_labels={classes})
model = PeftModel.from_pretrained(base, {repo}).eval()
with torch.inference_mode():
    print(model(**tokenizer("a text of your own", return_tensors="pt", truncation=True)).logits)"""

_PEFT_IMAGE = """\
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained({repo})
base = AutoModelForImageClassification.from_pretrained(
    {base}, num_labels={classes}, ignore_mismatched_sizes=True
)
model = PeftModel.from_pretrained(base, {repo}).eval()
with torch.inference_mode():
    print(model(**processor(Image.open({example}).convert("RGB"), return_tensors="pt")).logits)"""

_PEFT_TIMM = """\
import timm
import torch
from peft import PeftModel
from PIL import Image

base = timm.create_model({base}, pretrained=True, num_classes={classes})
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(base))
model = PeftModel.from_pretrained(base, {repo}).eval()
with torch.inference_mode():
    print(model(transform(Image.open({example}).convert("RGB"))[None]))"""


def snippet(facts: CardFacts, *, base: str) -> str:
    """Python that loads the model and uses it once; ``base`` is where an adapter's base model is found."""
    image = facts.task == "image_classification"
    values = {
        "repo": PLACEHOLDER,
        "source": f"hf-hub:{PLACEHOLDER}",
        "task": "image-classification" if image else "text-classification",
        "example": "photo.jpg" if image else "a text of your own",
        "base": base,
        "classes": len(facts.labels) or 1,
    }
    return _template(facts).format(**{name: json.dumps(value) for name, value in values.items()})


def _template(facts: CardFacts) -> str:
    if facts.library == "timm":
        return _TIMM
    if facts.library == "peft" and facts.base_library == "timm":
        return _PEFT_TIMM
    if facts.library == "peft":
        return _PEFT_IMAGE if facts.task == "image_classification" else _PEFT_TEXT
    return _LOGITS if facts.task == "text_regression" else _PIPELINE
