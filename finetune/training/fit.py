"""``fit``: one run from its arguments to its result."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import nn

from ..checkpoints.log import ending
from ..checkpoints.run_folder import RunFolder, check_run_folder, open_run_folder
from ..choices import listed
from ..cpu_runtime import cpu_runtime
from ..crash_logs import crash_logs_in
from ..curricula import Curriculum
from ..encoders.vocabulary import keep_used_rows
from ..environment import environment
from ..errors import ConfigError, FinetuneError, RunFolderError
from ..optimizers import SGD, AdamW, OptimizerConfig, param_groups
from ..plan_document import digest
from ..policies import Checkpointing, EarlyStopping, NonFinite, Stopping
from ..precision import Precision
from ..randomness import preserved
from ..redaction import redacted
from ..run_config import RunConfig, as_plain
from ..schedules import Schedule, WarmupLinear
from ..speed import Speed
from ..strategies.base import Strategy
from ..strategies.full import Full
from ..tasks.base import Task
from ..tracking import Show, display
from .facts import evaluation_steps
from .finishing import finish
from .image_keeping import keep_images
from .loop import Training, train
from .lost import told_of_losses
from .memory import told_of_memory
from .placement import Placement, placed
from .prefix_cache import PrefixCache
from .prepare import Prepared, prepare, sampler_of
from .restoring import told_of_storage
from .run_difficulty import run_difficulty
from .saving import Saver
from .signals import StopRequests, stop_requests
from .state import RunState
from .ways import as_libraries_made_it

Existing = Literal["refuse", "resume", "overwrite"]


class FitResult(NamedTuple):
    """What a run gave."""

    model: nn.Module  # with the weights that ``model/`` holds; sharded under FSDP2
    metrics: dict[str, dict[str, float]]  # of that model, by split
    best: dict[str, Any]  # step and metrics of the best evaluation
    plan: dict[str, Any]  # the document that ``finetune plan`` prints
    state: RunState
    folder: Path | None


def fit(
    task: Task,
    *,
    strategy: Strategy = Full(),  # noqa: B008 (frozen)
    schedule: Schedule = WarmupLinear(),  # noqa: B008
    curriculum: Curriculum | None = None,
    optimizer: OptimizerConfig = AdamW(),  # noqa: B008
    length: str = "3 epochs",
    batch_size: int = 32,
    micro_batch: str = "auto",
    order: Literal["random", "bucketed", "balanced"] = "random",
    precision: Precision = Precision(),  # noqa: B008
    max_grad_norm: float = 1.0,
    metric: str = "",
    evaluate_every: str = "1 epoch",
    checkpoint: Checkpointing = Checkpointing(),  # noqa: B008
    early_stopping: EarlyStopping | None = None,
    non_finite: NonFinite = NonFinite(),  # noqa: B008
    workers: int = 0,
    log_every: str = "10 steps",
    seed: int = 42,
    speed: Speed = Speed(),  # noqa: B008
    output_dir: str | None = None,
    existing: Existing = "refuse",
    show: Show = "progress",
    config_text: str | None = None,
    stop_at: int | None = None,
    stopping: Stopping | None = None,
) -> FitResult:
    """Fine-tune ``task``'s model on its training split.

    The process is left as it was found: global random state, signal handlers, Accelerate's state.

    Args:
        task: Data, model, loss and metrics. The other arguments up to ``output_dir`` are those of ``RunConfig``.
        strategy: Which layers train, when, how fast.
        schedule: Course of the learning rate.
        curriculum: Which examples may be drawn when.
        optimizer: With its base learning rates.
        length: Epochs or steps.
        batch_size: Examples per update, over all processes.
        micro_batch: How much one forward takes.
        order: Of the examples.
        precision: Number format.
        max_grad_norm: 0 never clips.
        metric: Decides best; ``""``: the task's first.
        evaluate_every: Interval.
        checkpoint: When to save and what to keep.
        early_stopping: None: never.
        non_finite: What is done about an update whose loss or gradient is not finite.
        workers: Loader processes.
        log_every: Interval.
        seed: Of everything random.
        speed: Techniques that make the run fast; the exact ones are on.
        output_dir: The run folder; None: nothing is written.
        existing: What to do with a run folder that is not empty: refuse it, go on with its run (bit for bit,
            on the same machine), or move it aside.
        show: ``"progress"`` on stderr, or ``"nothing"``.
        config_text: What ``config.yaml`` holds, from whoever read one.
        stop_at: Save and stop as if a signal had come after this step.
        stopping: Asked after each evaluation whether the run ends there, beside ``early_stopping``.

    Returns:
        The model with its best weights (the last, with ``keep_best=0``) and what it scored.

    Raises:
        FinetuneError: Anything that was to be expected; its class and ``exit_code`` say which.
    """
    given = locals()  # every field of RunConfig is an argument of the same name
    config = _checked({field.name: given[field.name] for field in fields(RunConfig)}, existing=existing, show=show)
    with (
        stop_requests() as requests,
        preserved(),
        told_of_losses(),
        told_of_memory(),
        placed(config.precision) as placement,
    ):
        runtime = cpu_runtime(placement.device.type, config.speed.cpu_runtime)
        with runtime:
            _check_run_folder(config, placement, existing=existing)  # before the model is loaded, which takes long
            prepared = prepare(config, placement)
            with _run_folder(config, placement, existing=existing) as folder:  # a refused run leaves none
                return _run(
                    prepared,
                    placement,
                    folder,
                    requests,
                    show=show,
                    config_text=config_text,
                    stop_at=stop_at,
                    stopping=stopping,
                )


def _checked(settings: Mapping[str, Any], *, existing: Existing, show: Show) -> RunConfig:
    for name, value, kind in (("existing", existing, Existing), ("show", show, Show)):
        if value not in get_args(kind):
            raise ConfigError(f"{name}: got {value!r}; expected one of {listed(get_args(kind))}")
    try:
        return RunConfig(**settings)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def plan_run(config: RunConfig) -> dict[str, Any]:
    """The plan of a run as a document, without training and without writing anything."""
    with preserved(), told_of_memory(), placed(config.precision) as placement:
        return prepare(config, placement).document


def _run(
    prepared: Prepared,
    placement: Placement,
    folder: RunFolder | None,
    requests: StopRequests,
    *,
    show: Show,
    config_text: str | None,
    stop_at: int | None,
    stopping: Stopping | None,
) -> FitResult:
    config = prepared.config
    has_folder = config.output_dir is not None
    optimizer = optimizer_of(prepared, placement)
    saver = Saver(prepared, placement, optimizer, folder=folder, has_folder=has_folder, extra={}, speed=config.speed)
    resumed = saver.resume() if has_folder else None
    state = resumed or RunState(scaler=config.precision.initial_state(placement.precision))
    difficulty = run_difficulty(prepared, placement, kept=saver.extra)
    prepared = prepared._replace(difficulty=difficulty)
    if folder is not None:
        _write_documents(folder, prepared, placement, config_text, begins=resumed is None)
    shown = display(
        show if placement.ranks.is_first else "nothing", total_steps=prepared.plan.total_steps, start=state.step
    )
    log = folder.log if folder is not None else None
    if log is not None and resumed is None and difficulty is not None and difficulty.way:
        log.append({"difficulty": difficulty.told, "scores": difficulty.scores})
    with as_libraries_made_it(prepared.forward), closing(saver), shown:
        for warning in prepared.document["warnings"]:
            shown.line(f"warning: {warning}")
        if resumed is not None:
            shown.line(f"going on after step {state.step}")
        prepared = keep_images(
            prepared,
            placement,
            evaluations=evaluation_steps(config, prepared.plan),
            log=log,
            tell=shown.line,
            is_stopping=lambda: any(requests.flags()),
        )
        run = Training(
            prepared=prepared,
            placement=placement,
            optimizer=optimizer,
            sampler=sampler_of(prepared, difficulty.values if difficulty else None),
            saver=saver,
            state=state,
            shown=shown,
            requests=requests,
            log=log,
            prefix=PrefixCache(prepared, placement, log=log, tell=shown.line),
            tokens=prepared.forward.tokens,
            stopping=stopping,
        )
        with _ended(folder), told_of_losses(), told_of_memory():
            train(run, stop_at=stop_at)
            metrics = finish(run, folder, has_folder=has_folder)
    path = Path(config.output_dir) if config.output_dir is not None else None
    return FitResult(prepared.forward.model, metrics["final"], metrics["best"], prepared.document, state, path)


def optimizer_of(prepared: Prepared, placement: Placement) -> torch.optim.Optimizer:
    """The one optimizer of the run, over every group of the plan; placed together with the model."""
    if prepared.used_rows is not None:
        keep_used_rows(prepared.forward.model, prepared.used_rows)
    names = dict(prepared.forward.model.named_parameters())
    groups = param_groups(prepared.plan.groups, names, prepared.config.optimizer)
    takes_shards = isinstance(prepared.config.optimizer, (AdamW, SGD))  # a user's own kernel may not
    fused = "yes" if takes_shards or not placement.is_sharded else "no"
    optimizer = prepared.config.optimizer.build(groups, fused=fused)
    return placement.place(prepared.forward, optimizer, blocks=prepared.blocks)


def _check_run_folder(config: RunConfig, placement: Placement, *, existing: Existing) -> None:
    """Refuse a folder that cannot be taken, on every rank, and write nothing."""
    if config.output_dir is None:
        return
    path = Path(config.output_dir)

    def check() -> None:
        check_run_folder(path, resume=existing == "resume", overwrite=existing == "overwrite")
        if existing == "resume":
            _check_unfinished(path)

    placement.ranks.on_first(check)


def _check_unfinished(path: Path) -> None:
    log = path / "log.jsonl"
    with told_of_storage(log, what="read"):
        ended = ending(log)
    if ended == "finished":
        raise RunFolderError(
            f"{path} holds a finished run; there is nothing to resume. Its result is in {path / 'metrics.json'}. "
            "For a longer run choose another output_dir."
        )


@contextmanager
def _run_folder(config: RunConfig, placement: Placement, *, existing: Existing) -> Iterator[RunFolder | None]:
    """The run folder on rank 0, None on the others; a refusal is raised on every rank."""
    if config.output_dir is None:
        yield None
        return
    opened: list[RunFolder] = []
    path = Path(config.output_dir)

    def take() -> None:
        opened.append(open_run_folder(path, resume=existing == "resume", overwrite=existing == "overwrite"))
        if existing == "resume":
            _check_unfinished(path)  # again: another process may have ended it while the model was loaded here

    try:
        placement.ranks.on_first(take)
        with crash_logs_in(path):
            yield opened[0] if opened else None
    finally:
        for folder in opened:
            folder.close()


@contextmanager
def _ended(folder: RunFolder | None) -> Iterator[None]:
    """Write how the run ended as the last line of its log: launchers turn every exit code into 1."""
    began = time.time()
    record: Mapping[str, Any] = {"ended": "finished", "exit_code": 0}
    try:
        yield
    except FinetuneError as error:
        ended = {75: "preempted", 130: "interrupted", 70: "diverged"}.get(error.exit_code, "failed")
        record = {"ended": ended, "exit_code": error.exit_code, "cause": redacted(str(error))}
        raise
    except KeyboardInterrupt:
        record = {"ended": "interrupted", "exit_code": 130, "cause": "interrupted at once, from the checkpoint before"}
        raise
    except BaseException as error:
        record = {"ended": "failed", "exit_code": 1, "cause": redacted(f"{type(error).__name__}: {error}")}
        raise
    finally:
        if folder is not None:
            folder.log.append({**record, "wall_seconds": round(time.time() - began, 3)})


def _write_documents(
    folder: RunFolder, prepared: Prepared, placement: Placement, config_text: str | None, *, begins: bool
) -> None:
    """What runs from here on: a run that is gone on with may log, save or give up otherwise than before.

    Args:
        folder: The run folder.
        prepared: The run.
        placement: Where it runs.
        config_text: What ``config.yaml`` holds, from whoever read one.
        begins: Also for a run that was killed before its first checkpoint.
    """
    # JSON is YAML; a user's own objects stand there by name, as only their recipe can make them again.
    text = config_text if config_text is not None else json.dumps(as_plain(prepared.config), indent=2) + "\n"
    with told_of_storage(folder.path):
        folder.write_document("config.yaml", text)
        folder.write_document("plan.json", prepared.document)
        if not begins:
            return
        for split, faults in prepared.skipped.items():
            lines = [{"where": fault.where, "reason": fault.reason, "rows": fault.rows} for fault in faults]
            folder.write_document(f"bad_rows-{split}.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))
        found = environment(seed=prepared.config.seed, num_ranks=placement.ranks.count, precision=placement.precision)
        folder.write_document("environment.json", {**found, "plan": digest(prepared.document["identity"])})
