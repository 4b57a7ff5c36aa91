"""What a user is told: one message with what was wrong, where, and what to do."""

from __future__ import annotations


class FinetuneError(Exception):
    """A fault that is expected: shown as one message without a traceback.

    Args:
        message: What was wrong, where, and what to do about it.
    """

    exit_code = 2
    is_told = False  # whether the process that it came from tells the user
    is_own = False  # whether it may be of this process alone, which then has to tell


class ConfigError(FinetuneError):
    """A key, value or combination that the configuration does not allow; lists every fault at once."""


class DataError(FinetuneError):
    """Data that does not fit the task, named with file and row."""

    is_own = True  # a node has its own disk


class ModelError(FinetuneError):
    """A model that cannot be loaded, or does not fit the task."""

    is_own = True  # a node has its own disk


class LaunchError(FinetuneError):
    """What was launched is not what would run (processes, precision, sharding)."""


class RunFolderError(FinetuneError):
    """A run folder that is in use, not empty, not ours, or made by another plan."""


class PublishError(FinetuneError):
    """Publishing failed; the run itself is untouched."""

    exit_code = 69


class DivergedError(FinetuneError):
    """A loss or gradient that is not finite; nothing of that update was applied."""

    exit_code = 70


class StorageError(FinetuneError):
    """Disk full, or no checkpoint that can be read."""

    exit_code = 74


class PreemptedError(FinetuneError):
    """Asked to stop by a signal; a checkpoint was saved, so the run can be requeued."""

    exit_code = 75


class RankLostError(FinetuneError):
    """Another process of the run ended or stopped answering."""

    exit_code = 76
    is_own = True


class InterruptedRunError(FinetuneError):
    """Stopped by Ctrl-C; a checkpoint was saved."""

    exit_code = 130
