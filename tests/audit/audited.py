"""What no test may do, and no code under test: read a pickle from a file, or reach beyond this machine.

An audit hook writes each such attempt, with the test that was running, into the file that ``FINETUNE_AUDIT`` names,
and refuses the connections. It survives a fork; into fresh interpreters it comes by ``sitecustomize`` beside this
file, which ``PYTHONPATH`` leads to; an interpreter that would not find it is an offence itself. It sees what Python
does: not the sockets of gloo or of Rust extensions, and of torch's own reader of pickles only that it opens a file.
"""

import functools
import os
import re
import socket
import sys
from typing import Any

VARIABLE = "FINETUNE_AUDIT"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".distcp", ".metadata")
# Who may unpickle: values that processes of one program send one another, and compiled code in torch's own cache.
# By the file that asks; what it reads is a pipe or its own memory, no file of a user.
MAY_UNPICKLE = (
    "/multiprocessing/",
    "/concurrent/futures/",
    "/torch/distributed/distributed_c10d.py",
    "/torch/utils/data/",
    "/torch/_inductor/",
    "/torch/_functorch/",
    "/torch/_dynamo/",
    "/joblib/",
    "/tests/forked.py",
    "/tests/distributed/two_ranks.py",
    "/tests/unit/test_l2_sp.py",
    "/tests/unit/test_merged_lora.py",
)
# Who may open a file with such a name: ``finetune convert``, at the word of its user.
_MAY_OPEN = ("/finetune/hub/convert.py",)
_OF_OUR_CACHE = ("/entries/", "/drafts/")  # arrays of plain numbers that are called .bin, and mapped
_PICKLERS = ("/pickle.py", "/copyreg.py", "/torch/serialization.py", "/tests/audit/audited.py")
_LOCAL = {"::1", "localhost", "", None, socket.gethostname()}  # launchers ask for this machine by its name
_LOOPBACK = re.compile(r"127(\.\d+){3}")
_INTERPRETER = re.compile(r"python[\d.]*|accelerate|torchrun|finetune|pytest")
_BLIND = re.compile(r"-[a-zA-Z]*[EIS][a-zA-Z]*")  # flags with which PYTHONPATH or sitecustomize are passed over


def install() -> None:
    """Watch this process and all that it starts, and write to the file that ``FINETUNE_AUDIT`` names."""
    sys.addaudithook(_hook)


def watch(torch: Any) -> None:
    """Write it down too when ``torch.load`` is given a file, whatever its name: its reader raises no event."""
    load = torch.load

    @functools.wraps(load)
    def watched(file: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(file, (str, os.PathLike)):
            _note(f"called torch.load on {os.fspath(file)}")
        elif hasattr(file, "name"):
            _note(f"called torch.load on {file.name}")
        return load(file, *arguments, **options)

    torch.load = watched


def offences(report: str) -> list[str]:
    """What was attempted, once each, in order."""
    with open(report, encoding="utf-8") as file:
        return list(dict.fromkeys(file.read().splitlines()))


def _hook(event: str, arguments: tuple) -> None:
    look = _LOOK.get(event)
    if look is not None:
        look(arguments)


def _opened(arguments: tuple) -> None:
    path, mode, flags = arguments
    is_read = "r" in mode if isinstance(mode, str) else not flags & (os.O_WRONLY | os.O_CREAT)
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
    if is_read and name.endswith(PICKLES) and not any(part in name for part in _OF_OUR_CACHE) and not _removes():
        _unless_asked(f"opened {name}")
    elif is_read and name and _caller().endswith("/torch/serialization.py"):
        _unless_asked(f"called torch.load on {name}")


def _removes() -> bool:
    """Whether shutil asks, which opens a folder that it removes, whatever its name, to list what is in it."""
    code = sys._getframe(3).f_code
    return code.co_filename.endswith("/shutil.py") and code.co_name.startswith("_rmtree")


def _caller() -> str:
    """The file whose code asks; empty where it is the interpreter itself, which opens its script."""
    try:
        return sys._getframe(3).f_code.co_filename
    except ValueError:
        return ""


def _unless_asked(what: str) -> None:
    """Note it, where it is not done for somebody who may."""
    frame: Any = sys._getframe(3)
    while frame is not None and not frame.f_code.co_filename.endswith(_MAY_OPEN):
        frame = frame.f_back
    if frame is None:
        _note(what)


def _unpickled(arguments: tuple) -> None:
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.endswith(_PICKLERS):
        frame = frame.f_back
    asks = frame.f_code.co_filename if frame is not None else "nobody"
    if not any(part in asks for part in MAY_UNPICKLE):
        _note(f"unpickled {'.'.join(map(str, arguments))} in {asks}")


def _connected(arguments: tuple) -> None:
    made, address = arguments[:2]
    if made.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple):
        _reached(address)


def _reached(arguments: tuple) -> None:
    host = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
    if host not in _LOCAL and not _LOOPBACK.fullmatch(str(host)):
        _note(f"tried to reach {host}")
        raise OSError(f"a test tried to reach {host}")


def _started(arguments: tuple) -> None:
    _, words, _, environment = arguments
    words = [os.fsdecode(word) for word in ([words] if isinstance(words, (str, bytes)) else words)]
    if not words or not _INTERPRETER.fullmatch(os.path.basename(words[0])):
        return
    flags = []
    for word in words[1:]:
        if not word.startswith("-") or word in ("-c", "-m"):
            break
        flags.append(word)
    known = dict(os.environ if environment is None else environment)
    known = {os.fsdecode(name): os.fsdecode(value) for name, value in known.items()}
    places = known.get("PYTHONPATH", "").split(os.pathsep)
    is_found = any(os.path.exists(os.path.join(place, os.path.basename(__file__))) for place in places)
    if any(map(_BLIND.fullmatch, flags)) or VARIABLE not in known or not is_found:
        _note(f"started an interpreter that is not watched: {' '.join(words)[:200]}")


_LOOK = {
    "open": _opened,
    "subprocess.Popen": _started,
    "pickle.find_class": _unpickled,
    "socket.connect": _connected,
    "socket.sendto": _connected,
    "socket.sendmsg": _connected,
    "socket.getaddrinfo": _reached,
    "socket.gethostbyname": _reached,
    "socket.gethostbyaddr": _reached,
}


def _note(what: str) -> None:
    report = os.environ.get(VARIABLE)
    if report is None:
        return
    test = os.environ.get("PYTEST_CURRENT_TEST", "no test").rpartition(" (")[0] or "between tests"
    handle = os.open(report, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(handle, f"{test}: {' '.join(what.split())}\n".encode())
    finally:
        os.close(handle)
