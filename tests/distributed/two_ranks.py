"""Real processes for tests: two gloo ranks that meet in a file, forked from this one, under DDP or FSDP2."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_FORK = multiprocessing.get_context("fork")
TIMEOUT_S = 120

FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}


def on_ranks(work: Callable[[], Any], *, count: int = 2, sharded: bool = False) -> list[Any]:
    """What ``work`` returned on each rank; the first rank's fault is raised.

    Args:
        work: Runs in every process, after the process group is there.
        count: Ranks.
        sharded: FSDP2 instead of DDP.
    """
    with tempfile.TemporaryDirectory() as folder:
        pipes = [_FORK.Pipe(duplex=False) for _ in range(count)]
        processes = [
            _FORK.Process(target=_rank, args=(work, rank, count, Path(folder) / "store", sharded, pipes[rank][1]))
            for rank in range(count)
        ]
        for process in processes:
            process.start()
        try:
            return [_received(pipes[rank][0], processes[rank]) for rank in range(count)]
        except TimeoutError:
            for process in processes:
                if process.is_alive():
                    os.kill(process.pid, signal.SIGUSR2)  # shows on stderr where it hangs
            time.sleep(1)
            raise
        finally:
            for process in processes:
                process.join(5)
                if process.is_alive():
                    process.kill()
                    process.join()


def _received(pipe: Connection, process: Any) -> Any:
    if not pipe.poll(TIMEOUT_S):
        raise TimeoutError(f"{process.name} gave no result in {TIMEOUT_S} s")
    kind, value = pickle.loads(pipe.recv_bytes())
    if kind == "raised":
        raise value
    return value


def _rank(work: Callable[[], Any], rank: int, count: int, store: Path, sharded: bool, pipe: Connection) -> None:
    faulthandler.register(signal.SIGUSR2)
    import torch.distributed as dist
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    os.environ.update(WORLD_SIZE=str(count), RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(count))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", ACCELERATE_USE_CPU="true")
    try:
        dist.init_process_group("gloo", store=dist.FileStore(str(store), count), rank=rank, world_size=count)
        state = PartialState(cpu=True)
        if sharded:
            # Accelerate ignores FSDP on a CPU; this is what it would have found on GPUs (checked with 1.15).
            os.environ.update(FSDP2)
            state._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        outcome = ("returned", work())
    except BaseException as error:
        traceback.print_exc()
        outcome = ("raised", error)
    try:
        # Plain pickle: the pipe's own would pass tensors as file handles, which end with this process.
        pipe.send_bytes(pickle.dumps(outcome))
    except Exception as error:
        pipe.send_bytes(pickle.dumps(("raised", RuntimeError(f"{outcome!r} cannot be sent: {error}"))))
    finally:
        os._exit(0)
