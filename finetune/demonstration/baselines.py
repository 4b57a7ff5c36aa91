"""What a fine-tuned model must beat to be worth it: logistic regression on words, and on pixels."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from ..data.table import Table
    from ..tasks.images import ImageClassification
    from ..tasks.text import TextClassification

STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # C is chosen on the validation split, as the settings of the recipes were


class Scored(NamedTuple):
    """A baseline that was fitted."""

    name: str
    parameters: int
    accuracy: float  # on the test split, or on validation where there is none
    examples: dict[str, int]
    classes: int


def tfidf(task: TextClassification) -> Scored:
    """Logistic regression on TF-IDF of words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    tables = _tables(task)
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    texts = {name: [" ".join(row) for row in table.texts()] for name, table in tables.items()}
    words.fit(texts["train"])
    features = {name: words.transform(rows) for name, rows in texts.items()}
    return _fitted("TF-IDF + logistic regression", tables, features)


def pixels(task: ImageClassification) -> Scored:
    """Logistic regression on grey pixels, 0 … 1."""
    tables = _tables(task)
    features = {
        name: np.stack([np.asarray(table.image(index).convert("L")).ravel() / 255 for index in range(len(table))])
        for name, table in tables.items()
    }
    return _fitted("pixels + logistic regression", tables, features)


def _tables(task: Any) -> dict[str, Table]:
    from ..tasks.splits import Splits

    splits = Splits(task.data, task.name)
    return {name: splits.table(name) for name in ("train", "validation", "test") if name in task.splits()}


def _fitted(name: str, tables: dict[str, Table], features: dict[str, Any]) -> Scored:
    from sklearn.linear_model import LogisticRegression

    train, held_out = tables["train"], "test" if "test" in tables else "validation"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence: the weakest penalties need not be the best
        models = [LogisticRegression(C=c, max_iter=1000).fit(features["train"], train.labels) for c in STRENGTHS]
    best = max(models, key=lambda model: model.score(features["validation"], tables["validation"].labels))
    return Scored(
        name,
        parameters=best.coef_.size + best.intercept_.size,
        accuracy=float(best.score(features[held_out], tables[held_out].labels)),
        examples={split: len(tables[split]) for split in ("train", held_out)},
        classes=len(train.label_names or ()),
    )
