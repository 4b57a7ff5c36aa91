"""The metrics: closed forms and scikit-learn on numpy, one row of ``METRICS`` each.

Averages over classes are macro (every class counts the same) unless the name says otherwise, and run
over the classes that occur in labels or predictions, as scikit-learn's do. A class that is never
predicted has precision 0. What a metric does not define (one class for ``roc_auc``, constant
predictions for ``pearson``) is nan, never an exception.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import ConfigError

Direction = Literal["maximize", "minimize"]
Problem = Literal["classification", "regression"]
Reads = Literal["classes", "logits", "values"]
Score = Callable[[np.ndarray, np.ndarray], float]


class Undefined(ValueError):  # noqa: N818 - not an error: the score becomes nan, and this says why
    """A score that these labels and predictions do not define."""


@dataclass(frozen=True)
class Metric:
    """One score of a whole split.

    ``score(labels, predictions)``: predictions are classes, (examples,) int64; logits,
    (examples, classes) float64; or values, (examples,) or (examples, targets) float64, as ``reads`` says.
    """

    name: str
    direction: Direction
    problem: Problem
    reads: Reads
    score: Score

    def compute(self, *, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """``{name: score}``.

        Raises:
            Undefined: These examples do not define the score.
        """
        return {self.name: float(self.score(labels, predictions(logits, reads=self.reads)))}


def predictions(logits: np.ndarray, *, reads: Reads) -> np.ndarray:
    """What a metric is given of the logits, (examples, classes)."""
    if reads == "classes":
        return logits.argmax(axis=-1)
    return logits[:, 0] if reads == "values" and logits.ndim == 2 and logits.shape[1] == 1 else logits


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Log-softmax over the last axis; a logit of -inf is a class that is ruled out."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _sklearn(function: str, **options: object) -> Score:
    def score(labels: np.ndarray, predicted: np.ndarray) -> float:
        import sklearn.metrics

        with warnings.catch_warnings():  # "a single label was found": its value for that case is documented, 0
            warnings.simplefilter("ignore", UserWarning)
            return getattr(sklearn.metrics, function)(labels, predicted, **options)

    return score


def _averaged(function: str, average: str) -> Score:
    return _sklearn(function, average=average, zero_division=0)


def _accuracy(labels: np.ndarray, classes: np.ndarray) -> float:
    return (labels == classes).mean()


def _top5_accuracy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Share of examples whose label is among the five highest logits; of equal logits the lower class goes first."""
    best = np.argsort(-logits, axis=-1, kind="stable")[:, :5]
    return (best == labels[:, None]).any(axis=-1).mean()


def _balanced_accuracy(labels: np.ndarray, classes: np.ndarray) -> float:
    """Mean recall over the classes that occur in the labels."""
    return float(np.mean([(classes[labels == label] == label).mean() for label in np.unique(labels)]))


def _f1_binary(labels: np.ndarray, classes: np.ndarray) -> float:
    """F1 of class 1, as GLUE reports it for MRPC and QQP."""
    if max(labels.max(), classes.max()) > 1:
        raise ConfigError(
            "metric: 'f1_binary' is F1 of class 1 of two, and there are more than two. Use 'f1' (macro)."
        )
    return _averaged("f1_score", "binary")(labels, classes)


def _roc_auc(labels: np.ndarray, logits: np.ndarray) -> float:
    """Area under the ROC curve: of class 1 when there are two; else the mean, one class against the rest.

    The mean is over the classes that occur in the labels. Ranks are taken on log-probabilities, so
    that sure predictions do not tie when their probabilities round to 1.
    """
    from sklearn.metrics import roc_auc_score

    present = np.unique(labels)
    if len(present) < 2:
        raise Undefined("all labels are of one class")
    ranks = np.maximum(log_probabilities(logits), np.finfo(np.float64).min)
    if logits.shape[1] == 2:
        return roc_auc_score(labels, np.subtract(ranks[:, 1] / 2, ranks[:, 0] / 2))
    return float(np.mean([roc_auc_score(labels == label, ranks[:, label]) for label in present]))


def _log_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Cross-entropy, in nats; inf where a label was given probability 0."""
    return -log_probabilities(logits)[np.arange(len(labels)), labels].mean()


def _brier(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean squared distance of the probabilities from the label, summed over classes (Brier 1950): 0 to 2."""
    wanted = np.eye(logits.shape[1])[labels]
    return ((np.exp(log_probabilities(logits)) - wanted) ** 2).sum(axis=-1).mean()


def _ece(labels: np.ndarray, logits: np.ndarray) -> float:
    """Expected calibration error of the top class, 15 bins of equal width (Guo et al. 2017, section 2)."""
    probabilities = np.exp(log_probabilities(logits))
    confidence, correct = probabilities.max(axis=-1), probabilities.argmax(axis=-1) == labels
    bins = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)  # (0, 1/15], (1/15, 2/15] ...
    gaps = [abs((correct[bins == b] - confidence[bins == b]).sum()) for b in np.unique(bins)]
    return float(np.sum(gaps) / len(labels))


def _correlation(function: str) -> Score:
    def score(labels: np.ndarray, values: np.ndarray) -> float:
        import scipy.stats

        if labels.ndim > 1:
            columns = [score(labels[:, k], values[:, k]) for k in range(labels.shape[1])]
            return float(np.mean(columns))
        if len(labels) < 2:
            raise Undefined("it needs two examples")
        for what, array in (("labels", labels), ("predictions", values)):
            if np.ptp(array) == 0:
                raise Undefined(f"all {what} are equal")
        return getattr(scipy.stats, function)(labels, values).statistic

    return score


def _r2(labels: np.ndarray, values: np.ndarray) -> float:
    if len(labels) < 2:
        raise Undefined("it needs two examples")
    if (np.ptp(labels, axis=0) == 0).any():
        raise Undefined("all labels are equal")
    return _sklearn("r2_score")(labels, values)


_TABLE = (
    Metric("accuracy", "maximize", "classification", "classes", _accuracy),
    Metric("balanced_accuracy", "maximize", "classification", "classes", _balanced_accuracy),
    Metric("top5_accuracy", "maximize", "classification", "logits", _top5_accuracy),
    Metric("f1", "maximize", "classification", "classes", _averaged("f1_score", "macro")),
    Metric("f1_weighted", "maximize", "classification", "classes", _averaged("f1_score", "weighted")),
    Metric("f1_binary", "maximize", "classification", "classes", _f1_binary),
    Metric("precision", "maximize", "classification", "classes", _averaged("precision_score", "macro")),
    Metric("recall", "maximize", "classification", "classes", _averaged("recall_score", "macro")),
    Metric("matthews", "maximize", "classification", "classes", _sklearn("matthews_corrcoef")),
    Metric("roc_auc", "maximize", "classification", "logits", _roc_auc),
    Metric("log_loss", "minimize", "classification", "logits", _log_loss),
    Metric("brier", "minimize", "classification", "logits", _brier),
    Metric("ece", "minimize", "classification", "logits", _ece),
    Metric("mse", "minimize", "regression", "values", _sklearn("mean_squared_error")),
    Metric("rmse", "minimize", "regression", "values", _sklearn("root_mean_squared_error")),
    Metric("mae", "minimize", "regression", "values", _sklearn("mean_absolute_error")),
    Metric("r2", "maximize", "regression", "values", _r2),
    Metric("pearson", "maximize", "regression", "values", _correlation("pearsonr")),
    Metric("spearman", "maximize", "regression", "values", _correlation("spearmanr")),
)
METRICS = {metric.name: metric for metric in _TABLE}
