from __future__ import annotations

import ast
import re
from dataclasses import replace

import pytest
import yaml

from finetune.model_cards.card import PLACEHOLDER, CardFacts, model_card
from finetune.model_cards.snippets import snippet

FACTS = CardFacts(
    title="reviews",
    task="text_classification",
    library="transformers",
    base_model="google-bert/bert-base-uncased",
    strategy="gradual_unfreeze",
    data="stanfordnlp/sst2",
    splits={"train": 67349, "validation": 872},
    labels=("negative", "positive"),
    results={"validation": {"accuracy": 0.875, "matthews": 0.75, "roc_auc": float("nan")}},
    baselines={"TF-IDF + logistic regression": {"accuracy": 0.8125}},
    settings={"optimizer": "adamw", "learning rate": "2e-05", "length": "3 epochs", "seed": "42"},
    plan=("group      steps    peak LR", "layer.11   0..90    2e-05"),
    trained_parameters=7_000_000,
    parameters=110_000_000,
    seconds=61.4,
    hardware="2 CPU cores",
    versions={"torch": "2.15.0"},
    limits=("English only.",),
    languages=("en",),
    license="apache-2.0",
)


def parts(facts):
    _, front, body = model_card(facts).split("---\n", 2)
    return yaml.safe_load(front), body


def test_front_matter_says_what_the_hub_needs():
    front, _ = parts(FACTS)
    index = front.pop("model-index")
    assert front == {
        "language": ["en"],
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["finetune-toolkit", "gradual-unfreeze"],
        "base_model": "google-bert/bert-base-uncased",
        "base_model_relation": "finetune",
        "datasets": ["stanfordnlp/sst2"],
        "metrics": ["accuracy", "matthews_correlation", "roc_auc"],
    }
    (result,) = index[0]["results"]
    assert index[0]["name"] == "reviews"
    assert result["dataset"] == {"name": "stanfordnlp/sst2", "type": "stanfordnlp/sst2", "split": "validation"}
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        "accuracy": 0.875,
        "matthews_correlation": 0.75,
    }


def test_body_says_what_ran_and_what_was_measured():
    _, body = parts(FACTS)
    for line in (
        "| split | examples | accuracy | matthews | roc_auc |",
        "| validation | 872 | 0.8750 | 0.7500 | not defined |",
        "| *TF-IDF + logistic regression* | | 0.8125 |  |  |",
        "[stanfordnlp/sst2](https://huggingface.co/datasets/stanfordnlp/sst2): 67349 train, 872 validation examples.",
        "Labels (2): `negative`, `positive`.",
        "| learning rate | 2e-05 |",
        "| parameters | 7,000,000 trained of 110,000,000 |",
        "| time | 61 s |",
        "| hardware | 2 CPU cores |",
        "layer.11   0..90    2e-05",
        "- English only.",
        f'classify = pipeline("text-classification", model="{PLACEHOLDER}")',
    ):
        assert line in body.splitlines(), line


def test_the_least_facts_make_a_card_without_empty_parts():
    facts = CardFacts("x", "image_classification", "timm", base_model="", strategy="full", data="own photos")
    front, body = parts(facts)
    assert "base_model" not in front and "model-index" not in front and "datasets" not in front
    assert "Trained from random weights" in body and "## Results" not in body and "| time" not in body


@pytest.mark.parametrize(
    ("base", "expected"),
    [("timm:vit_tiny_patch16_224", "timm/vit_tiny_patch16_224"), ("timm:timm/vit_x", "timm/vit_x"), ("minilm", None)],
)
def test_base_model_is_a_hub_id_or_absent(base, expected):
    front, _ = parts(replace(FACTS, library="timm", base_model=base))
    assert front.get("base_model") == expected


def test_an_adapter_is_tagged_as_one():
    front, body = parts(replace(FACTS, library="peft", strategy="lora"))
    assert front["library_name"] == "peft" and front["base_model_relation"] == "adapter"
    assert "base_model:adapter:google-bert/bert-base-uncased" in front["tags"]
    assert 'from_pretrained("google-bert/bert-base-uncased", num_labels=2)' in body


@pytest.mark.parametrize(
    "evil",
    [
        "x\n---\nlicense: mit\n---\n# owned",
        "{{ 7 * 191 }}{% raw %}",
        "a: b # c\r\n- d",
        "| x |\n|---|",
        "</td><script>alert(1)</script>",
        "```\n# out of the block",
        "\x00\x1b[31m\u2028---\u2029",
    ],
)
def test_no_value_breaks_out_of_its_place(evil):
    plain = replace(FACTS, labels=("l", "m"), plan=("p",), settings={"s": "v"}, limits=("i",))
    plain = replace(plain, results={"validation": {"accuracy": 0.5}})
    nasty = replace(plain, title=evil, data=evil, base_model=evil, labels=(evil, "m"), plan=(evil,), license=evil)
    nasty = replace(nasty, settings={evil: evil}, limits=(evil,), results={evil: {"accuracy": 0.5}}, hardware=evil)
    (front, body), (plain_front, plain_body) = parts(nasty), parts(plain)
    assert set(front) <= set(plain_front) and front["library_name"] == "transformers"
    assert shape(body) == shape(plain_body)
    prose = re.sub(r"```.*?```|`[^`]*`", "", body, flags=re.DOTALL)
    assert "1337" not in body and not re.search(r"(?<!\\)[<{]", prose)


def shape(body):
    """Headings after the first, columns of each table row, and fences."""
    lines = re.sub(r"```.*?```", "```\n```", body, flags=re.DOTALL).splitlines()
    columns = [len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")]
    return (
        [line for line in lines[2:] if line.startswith("#")],
        columns,
        [line[:3] == "```" for line in lines].count(1),
    )


def test_no_folder_of_this_machine_is_named():
    home = "/home/somebody/my project"
    facts = replace(FACTS, data=f"{home}/reviews.csv", base_model="/models/secret/bert", hardware="CPU (/dev/x/y)")
    card = model_card(replace(facts, plan=("from /home/somebody/x.yaml",), title=r"C:\Users\me\runs\reviews"))
    assert "reviews.csv" in card and "x.yaml" in card
    for place in ("somebody", "secret", "my project", "Users", "/dev"):
        assert place not in card


def test_a_label_that_looks_like_a_path_is_kept():
    assert "`/m/0dgw9r`" in model_card(replace(FACTS, labels=("/m/0dgw9r", "/m/012xp")))


def test_code_of_a_card_spells_letters_as_python_does():
    """A label with letters beyond 16 bits, and one that would turn the line."""
    facts = replace(FACTS, task="token_classification", library="peft", labels=("\U0001f600", "a\u202eb"))
    line = re.search(r"enumerate\((\[.*?\])\)", snippet(facts, base="BASE"))[1]
    assert ast.literal_eval(line) == list(facts.labels) and "\u202e" not in line


def test_an_adapter_on_a_timm_model_of_the_hub_names_the_hub():
    facts = replace(FACTS, task="image_classification", library="peft", base_library="timm")
    assert 'timm.create_model("hf-hub:user/name"' in snippet(facts, base="user/name")
    assert 'timm.create_model("vit_tiny"' in snippet(facts, base="vit_tiny")
