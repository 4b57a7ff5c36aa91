"""The shape of the code: imports point down, files stay small, nothing heavy at import, nothing dangerous."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import finetune

PACKAGE = Path(finetune.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# DESIGN, section 4: ground floor first.
FLOORS = [
    {
        "_version",
        "errors",
        "durations",
        "progress",
        "randomness",
        "choices",
        "fields",
        "letters",
        "orphans",
        "pictures",
        "speed",
        "cached_arrays",
        "start_up",
        "redaction",
        "crash_logs",
        "wording",
    },
    {"layers", "optimizers", "fused", "losses", "environment", "cpu_runtime", "forking"},
    {"models", "data", "encoders", "metrics"},
    {"schedules", "strategies", "curricula", "policies", "precision", "tasks"},
    {
        "run_config",
        "plans",
        "plan_checks",
        "plan_curves",
        "plan_document",
        "prefix",
        "checkpoints",
        "tracking",
        "model_cards",
    },
    {"hub"},
    {"training", "evaluation"},
    {
        "config",
        "running",
        "cli",
        "demonstration",
        "averaging",
        "stages",
        "lr_finding",
        "comparing",
        "recommending",
        "tuning",
    },
]
# Ideas that must not know one another, except as named.
APART = {"schedules", "strategies", "curricula", "policies", "tasks"}
HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "timm",
    "peft",
    "evaluate",
    "sklearn",
    "scipy",
    "accelerate",
    "matplotlib",
}


def floor_of(module: str) -> int:
    found = [at for at, names in enumerate(FLOORS) if module in names]
    assert found, f"{module} stands on no floor; add it to FLOORS"
    return found[0]


def top(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported(path: Path) -> set[str]:
    """Our own top modules that a file imports when it runs; what is imported for types only does not count."""
    package = ["finetune", *path.relative_to(PACKAGE).parts[:-1]]
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {tuple(name.name.split(".")) for name in node.names}
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = [*base, *(node.module.split(".") if node.module else [])]
            found |= {(*whole, name.name) for name in node.names}
    return {parts[1] for parts in found if parts[0] == "finetune" and len(parts) > 1}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    if path.name == "__init__.py" and path.parent == PACKAGE:
        return
    mine = top(path)
    for other in imported(path) - {mine}:
        assert floor_of(other) <= floor_of(mine), f"{mine} imports {other}, which stands above it"
        assert not (mine in APART and other in APART), f"{mine} and {other} are ideas that must not know each other"


def test_files_are_small():
    lines = sorted(len(path.read_text().splitlines()) for path in FILES)
    assert max(lines) <= 400, [path.name for path in FILES if len(path.read_text().splitlines()) > 400]
    assert lines[len(lines) // 2] < 200


def test_functions_are_small():
    long = [
        f"{path.name}:{node.name} {size}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for size in [node.end_lineno - node.body[bool(ast.get_docstring(node)) and len(node.body) > 1].lineno + 1]
        if size >= 50
    ]
    assert not long, long


def test_no_file_is_named_for_what_it_is_not():
    banned = {"utils", "util", "common", "helpers", "helper", "manager", "handler", "engine", "processor", "misc"}
    assert not [path for path in FILES if path.stem in banned]


def test_every_module_reads_its_annotations_late():
    for path in FILES:
        text = path.read_text()
        has_code = any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in ast.parse(text).body)
        assert not has_code or "from __future__ import annotations" in text, path


def loaded_by(*code: str) -> set[str]:
    """The top modules that a fresh interpreter holds after ``code``."""
    script = "\n".join(
        [*code, "import json, sys", "print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_costs_nothing():
    assert not loaded_by("import finetune") & (HEAVY | {"numpy", "pydantic", "yaml", "typer"})


def test_help_loads_nothing_heavy():
    """--help under a second, told by what it imports: a clock would fail on a busy machine."""
    found = loaded_by(
        "from finetune.cli import main",
        "try: main(argv=['--help'])",
        "except SystemExit as end: assert end.code == 0, end.code",
    )
    assert not found & (HEAVY | {"numpy", "pydantic"})


def test_a_config_error_comes_before_anything_heavy():
    found = loaded_by(
        "from finetune.cli import main",
        "try: main(argv=['train', 'bert_text', 'strategy=lorra'])",
        "except SystemExit as end: assert end.code == 2, end.code",
    )
    assert not found & HEAVY


def dangerous(tree: ast.AST) -> list[str]:
    """Calls that run code from data, or unpack what they are given (notes/faults, X14)."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [name.name for name in node.names] + [getattr(node, "module", "") or ""]
            found += [name for name in names if name.split(".")[0] in {"pickle", "dill", "cloudpickle", "shelve"}]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        words = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in {"eval", "exec", "torch.load", "yaml.load", "os.system"} or name.endswith(".extractall"):
            found.append(name)
        if name.endswith(("np.load", "numpy.load")) and words.get("allow_pickle") != "False":
            found.append(name)
        if words.get("shell") == "True" or words.get("trust_remote_code") == "True":
            found.append(f"{name}({words})")
    return found


# What may, at the word of the user, in a process of its own: ``finetune convert``.
ALLOWED = {PACKAGE / "hub" / "convert.py": ["torch.load"]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_runs_code_from_data(path):
    assert dangerous(ast.parse(path.read_text())) == ALLOWED.get(path, [])


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "torch.load(f)",
        "yaml.load(f)",
        "np.load(f)",
        "z.extractall()",
        "subprocess.run(x, shell=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
    ],
)
def test_the_lint_sees(code):
    assert dangerous(ast.parse(code))
