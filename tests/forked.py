"""Children for tests that kill, forked from this process: what takes a fresh interpreter seconds is loaded."""

from __future__ import annotations

import os
import pickle
import select
import signal
import tempfile
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist

from finetune.cli.reporting import ended

WAIT_S = 60


class Ended(NamedTuple):
    """How a child ended: its exit code, or minus the signal that ended it; what it printed to stderr."""

    code: int
    err: str


class Child:
    """A forked process that runs ``work`` and exits with the code that the command line would give.

    What ``work`` printed to stderr goes into a file, unless it redirects stderr itself.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._stderr = tempfile.TemporaryFile()
        self._alive, held = os.pipe()  # the far end closes when the child, and all that it forks, are gone
        self.pid = os.fork()
        if self.pid == 0:
            self._run(work)
        os.close(held)

    def wait(self, seconds: float = WAIT_S) -> Ended:
        """Wait for the child and all that it forked; fails when they do not end."""
        try:
            if not select.select([self._alive], [], [], seconds)[0]:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"the child, or one of its own, hangs; it said: {self._said()}")
        finally:
            status = os.waitpid(self.pid, 0)[1]
            os.close(self._alive)
        return Ended(os.waitstatus_to_exitcode(status), self._said())

    def is_running(self) -> bool:
        """Whether the child itself has not ended yet."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def _said(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode()

    def _run(self, work: Callable[[], Any]) -> None:
        code = 99
        try:
            os.dup2(self._stderr.fileno(), 2)
            import sys

            sys.stderr = sys.__stderr__ = open(2, "w", closefd=False)
            sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)
            for name in ("SIGHUP", "SIGALRM"):  # ignored in a shell's background jobs; used by pytest
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = ended(work, [])
        except SystemExit as error:
            code = error.code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)


def ended_child(work: Callable[[], Any]) -> Ended:
    """Run ``work`` in a child to its end."""
    return Child(work).wait()


def told_by_child(work: Callable[[], Any]) -> Any:
    """What ``work`` returns in a child that must end well."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "value"
        done = ended_child(lambda: path.write_bytes(pickle.dumps(work())))
        assert path.exists(), done.err
        return pickle.loads(path.read_bytes())


def side_by_side(work: Callable[[Any], Any], todo: Sequence[Any], *, seconds: float, count: int = 2) -> list[Any]:
    """What ``work`` gives for each of ``todo``, in order, by so many children at once; their first fault is raised."""
    with tempfile.TemporaryDirectory() as folder:

        def share(number: int) -> None:
            try:
                found: Any = [work(each) for each in todo[number::count]]
            except Exception:
                found = traceback.format_exc()
            (Path(folder) / str(number)).write_bytes(pickle.dumps(found))

        children = [Child(partial(share, number)) for number in range(count)]
        ended = [child.wait(seconds) for child in children]
        assert [one.code for one in ended] == [0] * count, ended
        shares = [pickle.loads((Path(folder) / str(number)).read_bytes()) for number in range(count)]
    for found in shares:
        assert isinstance(found, list), found
    return [shares[number % count][number // count] for number in range(len(todo))]


def ended_ranks(
    work: Callable[[], Any], *, count: int = 2, timeout_s: float = WAIT_S, hanging: int | None = None
) -> list[Ended]:
    """How each of several gloo ranks ended that ran ``work``.

    Args:
        work: Runs in every process, after the process group is there.
        count: Ranks.
        timeout_s: Of a collective.
        hanging: A rank that is killed when the others have ended, as a launcher does it.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        children = [Child(_rank(work, rank, count, store, timeout_s)) for rank in range(count)]
        ended = {rank: child.wait() for rank, child in enumerate(children) if rank != hanging}
        if hanging is not None:
            os.kill(children[hanging].pid, signal.SIGKILL)
            ended[hanging] = children[hanging].wait()
        return [ended[rank] for rank in range(count)]


def _rank(work: Callable[[], Any], rank: int, count: int, store: Path, timeout_s: float) -> Callable[[], Any]:
    def joined() -> Any:
        os.environ.update(WORLD_SIZE=str(count), RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(count))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", ACCELERATE_USE_CPU="true")
        files = dist.FileStore(str(store), count)
        timeout = timedelta(seconds=timeout_s)
        dist.init_process_group("gloo", store=files, rank=rank, world_size=count, timeout=timeout)
        work()  # and nothing returned: it would become the exit code

    return joined


class Acting:
    """A task that does something once, in a forward of training or of an evaluation at a step (from 0).

    No dataclass: what it does is no part of the plan.

    Args:
        task: The task.
        step: The clock of that forward.
        act: What it does.
        training: Whether it is a forward of training.
        rank: Only there.
    """

    def __init__(
        self,
        task: Any,
        step: int = -1,
        act: Callable[[], Any] = lambda: None,
        training: bool = True,
        rank: int = 0,
    ) -> None:
        self.task, self.step, self.act, self.training, self.rank = task, step, act, training, rank
        self._acted = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.task, name)

    def forward(self, model: Any, batch: Any, progress: Any) -> Any:
        here = int(os.environ.get("RANK", "0")) == self.rank
        if here and progress.step == self.step and model.training == self.training and not self._acted:
            self._acted = True
            self.act()
        return self.task.forward(model, batch, progress)


def send(*numbers: int) -> Callable[[], None]:
    """Send signals to this process."""

    def act() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return act
