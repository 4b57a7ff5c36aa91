"""What a finished run leaves: final metrics, ``model/`` as the plain libraries read it, and its card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.run_folder import RunFolder
from ..data.loading import weighted_batch
from ..data.store import Draw, Store, moved
from ..encoders import padded
from ..encoders.vocabulary import restore_rows
from ..environment import hardware, versions
from ..evaluation import evaluate
from ..model_cards.card import CardFacts, Kind, model_card
from ..model_cards.probe import write_probe
from ..models.loaded import LoadedModel
from ..models.saving import base_model_name, save_model
from ..run_config import as_plain
from ..wording import worded
from .loop import Training, stop_if_asked
from .memory import evaluated
from .remembering import write_records
from .restoring import told_of_storage
from .sharding import model_state

# What a model of transformers is for, by what its class ends in, where that is not texts or images as a whole.
_HEADS: dict[str, Kind] = {
    "MaskedLM": "masked_language",
    "TokenClassification": "token_classification",
    "QuestionAnswering": "question_answering",
}
_PROBED = 4  # examples whose logits are kept, to check a model folder against
_WITHOUT_CLASSES = ("text_regression", "masked_language", "question_answering")
_PROBED_TOKENS = 8  # the same, of a masked language model


def finish(run: Training, folder: RunFolder | None, *, has_folder: bool) -> dict[str, Any]:  # noqa: FBT001
    """Put the best weights in place, score them, and write ``metrics.json`` and ``model/``.

    Returns:
        The content of ``metrics.json``: ``final`` (metrics of what ``model/`` holds, by split), ``best`` and the
        training time.
    """
    prepared, state = run.prepared, run.state
    step = run.saver.load_best(state)
    restore_rows(prepared.forward.model)
    final = {"validation": state.metrics[step]}
    sizes = {"train": len(prepared.train), "validation": len(prepared.validation)}
    if (test := prepared.test) is not None:
        sizes["test"] = len(test)
        final["test"] = evaluated(
            run,
            lambda: evaluate(
                prepared.forward,
                test,
                task=prepared.config.task,
                progress=prepared.plan.at(state.step, state.evaluations),
                placement=run.placement,
                micro_batch=run.micro_batch,
                tokens=prepared.forward.tokens,
                between=lambda: stop_if_asked(run),
            ),
        )
    metrics: dict[str, Any] = {
        "final": final,
        "best": {"step": step, "metric": prepared.metric, **state.metrics[step]},
        "steps": state.step,
        "stopped_early": state.stopped_early,
        "skipped_updates": state.scaler.skipped + state.not_finite.num_updates,
        "training_seconds": round(state.seconds, 3),
    }
    if has_folder:
        _write(run, folder, metrics, sizes)
    prepared.forward.eval()
    return metrics


def _write(run: Training, folder: RunFolder | None, metrics: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Every rank gathers (and runs the probe's forward); rank 0 writes."""
    prepared = run.prepared
    names = [name for name in prepared.forward.model.state_dict() if ".original_module." not in name]
    gathers = run.placement.is_sharded or folder is not None
    weights = model_state(prepared.forward, names) if gathers else {}
    probe = _probe(run)
    if folder is None:
        return

    def fill(path: Path) -> None:
        save_model(
            path,
            prepared.loaded,
            prepared.forward.model,
            id2label=_labels(run),
            state_dict=weights,
        )
        (path / "README.md").write_text(model_card(_facts(run, metrics, path, sizes)), encoding="utf-8")

    with told_of_storage(folder.path):
        folder.write_folder("model", fill)
        write_probe(
            folder.path,
            inputs={name: tensor for name, tensor in probe["inputs"].items()},
            logits=probe["logits"],
            base=prepared.loaded.source,
            library=prepared.loaded.library,
            kind=next((head for head, kind in _HEADS.items() if kind == _kind(run)), ""),
        )
        write_records(folder, prepared.config.task, run.state.remembered, data=prepared.train.fingerprint)
        folder.write_document("metrics.json", metrics)


def _probe(run: Training) -> dict[str, Any]:
    """A few validation examples and what the final model gives for them, in fp32."""
    prepared = run.prepared
    draws = [Draw(0, 0, index) for index in range(min(_PROBED, len(prepared.validation)))]
    batch = seen = weighted_batch(prepared.validation, draws)
    if "lengths" in batch:
        batch = seen = padded(batch, prepared.forward.pad_id)  # as the plain libraries take it
    if "wanted" in batch:
        seen = weighted_batch(prepared.validation, draws)  # flat: logits of these tokens only
        most = _PROBED_TOKENS if _kind(run) == "masked_language" else None  # each is a vocabulary wide
        batch["wanted"] = seen["wanted"] = seen["wanted"][:most]
    prepared.forward.eval()
    with torch.no_grad():
        logits = prepared.forward(moved(seen, run.placement.device))
    left_out = ("labels", "index", "weights", "answers", "owners", "counts")
    inputs = {name: tensor for name, tensor in batch.items() if name not in left_out}
    return {"inputs": inputs, "logits": logits.float().cpu()}


def _labels(run: Training) -> dict[int, str]:
    found = getattr(run.prepared.config.task, "id2label", None)
    if _kind(run) == "masked_language":  # it has none; the checkpoint's stay, as the next task replaces them
        found = run.prepared.loaded.module.config.id2label  # type: ignore[union-attr]
    return dict(found) if found else {0: "LABEL_0"}


def _facts(run: Training, metrics: Mapping[str, Any], model: Path, sizes: Mapping[str, int]) -> CardFacts:
    """What the card says: read off the plan and the run, never asked of the user."""
    prepared, config = run.prepared, run.prepared.config
    document, task = prepared.document, config.task
    is_adapter = (model / "adapter_config.json").exists()
    return CardFacts(
        title=Path(config.output_dir or "run").name,
        task=_kind(run),
        library="peft" if is_adapter else prepared.loaded.library,
        base_library=prepared.loaded.library,
        base_model="" if getattr(task, "weights", "") == "scratch" else base_model_name(prepared.loaded),
        strategy=_name(document["strategy"]),
        data=_data_name(task),
        splits=sizes,
        labels=tuple(_labels(run).values()) if _kind(run) not in _WITHOUT_CLASSES else (),
        results=metrics["final"],
        settings=_settings(run),
        plan=tuple(plan_lines(document)),
        trained_parameters=document["num_trained"],
        parameters=document["num_parameters"],
        seconds=metrics["training_seconds"],
        hardware=hardware() if run.placement.ranks.count == 1 else f"{run.placement.ranks.count} x {hardware()}",
        versions=versions(),
    )


def _kind(run: Training) -> Kind:
    return kind_of(run.prepared.loaded, run.prepared.validation)


def kind_of(loaded: LoadedModel, store: Store) -> Kind:
    """What a model is for: its class says what its head is, and what labels the data has which sort of it.

    So neither a wrapped task nor a user's own has to say it.
    """
    head = type(loaded.module).__name__
    for part, kind in _HEADS.items():
        if f"For{part}" in head:
            return kind
    labels = store.labels
    has_sets = labels is not None and labels.dtype == bool
    if loaded.library == "timm" or getattr(loaded.module, "main_input_name", "") == "pixel_values":
        return "image_multi_label" if has_sets else "image_classification"
    if has_sets:
        return "text_multi_label"
    return "text_regression" if labels is not None and labels.dtype.kind == "f" else "text_classification"


def _name(component: Any) -> str:
    """What a strategy is called: its own name, or the class of a user's own."""
    if isinstance(component, Mapping):
        return str(component.get("name", "custom"))
    return str(component).strip("<>").rpartition(".")[2]


def _data_name(task: Any) -> str:
    data = getattr(task, "data", None)
    name = getattr(data, "name", None)
    return name if name else "own files" if data is not None else "in memory"


def _settings(run: Training) -> dict[str, str]:
    config, document = run.prepared.config, run.prepared.document
    plain = as_plain(config)
    parts = ("optimizer", "schedule", "strategy", "curriculum", "early_stopping")
    settings = {key.replace("_", " "): worded(plain[key]) for key in parts if plain[key]}
    settings |= {"length": str(config.length), "steps": f"{run.state.step} of {document['total_steps']}"}
    settings |= {"batch size": str(config.batch_size), "order": config.order, "precision": document["precision"]}
    return settings | {"gradient norm": f"clipped at {config.max_grad_norm:g}", "seed": str(config.seed)}


def plan_lines(document: Mapping[str, Any]) -> list[str]:
    """One line per layer group: from which step to which it trained, and at which peak LR."""
    lines = []
    for group in document["groups"]:
        spans = "; ".join(
            f"steps {span['from']} to {span['to'] - 1} at LR up to {span['lr_peak']:.2e}" for span in group["trains"]
        )
        lines.append(f"{group['name']}: {spans or 'frozen'}")
    return lines
