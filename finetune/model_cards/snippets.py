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

_FILL_MASK = """\
from transformers import pipeline

fill = pipeline("fill-mask", model={repo})
print(fill(f"a text with one {{fill.tokenizer.mask_token}} in it"))"""

_PIPELINE_MULTI_LABEL = """\
from transformers import pipeline

classify = pipeline({task}, model={repo})
print(classify({example}, top_k={classes}))"""  # every label with its probability

_ANSWERS = """\
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({repo})
model = AutoModelForQuestionAnswering.from_pretrained({repo})
inputs = tokenizer("a question", {example}, return_tensors="pt", truncation="only_second")
with torch.inference_mode():
    found = model(**inputs)
start, end = int(found.start_logits.argmax()), int(found.end_logits.argmax())
print(tokenizer.decode(inputs["input_ids"][0, start : end + 1]))"""

_PEFT_ANSWERS = """\
import torch
from peft import PeftModel
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({repo})
model = PeftModel.from_pretrained(AutoModelForQuestionAnswering.from_pretrained({base}), {repo}).eval()
inputs = tokenizer("a question", {example}, return_tensors="pt", truncation="only_second")
with torch.inference_mode():
    found = model(**inputs)
start, end = int(found.start_logits.argmax()), int(found.end_logits.argmax())
print(tokenizer.decode(inputs["input_ids"][0, start : end + 1]))"""

_TAGGER = """\
from transformers import pipeline

tag = pipeline("token-classification", model={repo}, aggregation_strategy="first")
print(tag({example}))"""

_PEFT_TAGGER = """\
from peft import PeftModel
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

base = AutoModelForTokenClassification.from_pretrained(
    {base}, id2label=dict(enumerate({labels})), ignore_mismatched_sizes=True
)
model = PeftModel.from_pretrained(base, {repo}).merge_and_unload()
tokenizer = AutoTokenizer.from_pretrained({repo})
tag = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first")
print(tag({example}))"""

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

_TIMM_MULTI_LABEL = """\
import timm
import torch
from PIL import Image

model = timm.create_model({source}, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.inference_mode():
    logits = model(transform(Image.open({example}).convert("RGB"))[None])
print(dict(zip(model.pretrained_cfg["label_names"], logits[0].sigmoid().tolist())))"""

_PEFT_TEXT = """\
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({repo})
base = AutoModelForSequenceClassification.from_pretrained({base}, num_labels={classes})
model = PeftModel.from_pretrained(base, {repo}).eval()
with torch.inference_mode():
    print(model(**tokenizer("a text of your own", return_tensors="pt", truncation=True)).logits)"""

_PEFT_FILL_MASK = """\
from peft import PeftModel
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

tokenizer = AutoTokenizer.from_pretrained({repo})
model = PeftModel.from_pretrained(AutoModelForMaskedLM.from_pretrained({base}), {repo}).merge_and_unload()
fill = pipeline("fill-mask", model=model, tokenizer=tokenizer)
print(fill(f"a text with one {{tokenizer.mask_token}} in it"))"""

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
    image = facts.task.startswith("image_")
    is_timm_of_hub = facts.base_library == "timm" and "/" in base
    values = {
        "repo": PLACEHOLDER,
        "source": f"hf-hub:{PLACEHOLDER}",
        "task": "image-classification" if image else "text-classification",
        "example": "photo.jpg" if image else "a text of your own",
        "base": f"hf-hub:{base}" if is_timm_of_hub else base,
        "classes": len(facts.labels) or 1,
        "labels": list(facts.labels),
    }
    return _template(facts).format(**{name: _literal(value) for name, value in values.items()})


def _literal(value: object) -> str:
    """A text, number or list as Python; what is not printable, such as a letter that turns the line, is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else ascii(value)


def _template(facts: CardFacts) -> str:
    if facts.task.endswith("_multi_label") and facts.library == "timm":
        return _TIMM_MULTI_LABEL
    if facts.task.endswith("_multi_label") and facts.library == "transformers":
        return _PIPELINE_MULTI_LABEL
    if facts.library == "timm":
        return _TIMM
    if facts.library == "peft" and facts.task == "masked_language":
        return _PEFT_FILL_MASK
    if facts.task == "question_answering":
        return _PEFT_ANSWERS if facts.library == "peft" else _ANSWERS
    if facts.task == "token_classification":
        return _PEFT_TAGGER if facts.library == "peft" else _TAGGER
    if facts.library == "peft" and facts.base_library == "timm":
        return _PEFT_TIMM
    if facts.library == "peft":
        return _PEFT_IMAGE if facts.task.startswith("image_") else _PEFT_TEXT
    if facts.task == "masked_language":
        return _FILL_MASK
    return _LOGITS if facts.task == "text_regression" else _PIPELINE
