"""Who may import whom, read from the source.

jobs  ->  wiring (hydra)  ->  cluster (ray)  ->  rounds  training  stores  reports
                                             ->  encoders -> models  media
                                             ->  vocabulary  seams  settings  errors  metrics
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "orchestrator").rglob("*.py")) + sorted((ROOT / "jobs").rglob("*.py"))
OWNERS = {"ray": ("cluster",), "hydra": ("wiring", "jobs"), "omegaconf": ("wiring", "jobs"), "mlflow": ("stores/tracking",)}
TORCH = ("encoders", "models", "training", "cluster")
NOUNS = {"vocabulary", "seams", "errors", "metrics"}
MAY_IMPORT = {
    "vocabulary": set(),
    "errors": set(),
    "seams": {"vocabulary"},
    "metrics": {"vocabulary"},
    "media": NOUNS,
    "models": NOUNS,
    "encoders": NOUNS | {"models"},
    "rounds": NOUNS,
    "training": NOUNS | {"models", "encoders"},
    "stores": NOUNS,
    "reports": NOUNS,
    "settings": NOUNS | {"media", "encoders", "rounds", "training"},
    "cluster": NOUNS | {"settings", "media", "encoders", "models", "rounds", "training", "stores", "reports"},
    "wiring": NOUNS | {"settings"},
}
SCRIPTS = {"encoders/tiny_clip/train": {"media"}}  # made the weights we ship; nothing imports it


def place(path: Path) -> str:
    """`stores/tracking`, `jobs/compare`, `wiring`."""
    return path.relative_to(ROOT).with_suffix("").as_posix().removeprefix("orchestrator/")


def imports(path: Path) -> set[str]:
    """Modules a file names, wherever it does."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    direct = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return direct | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", FILES, ids=place)
def test_a_file_imports_only_what_stands_below_it(path: Path) -> None:
    here, found = place(path), imports(path)
    box = here.split("/")[0]
    for library, owners in OWNERS.items():
        if any(name.split(".")[0] == library for name in found):
            assert here.startswith(owners), f"{here} imports {library}, which belongs to {', '.join(owners)}"
    if any(name.split(".")[0] in ("torch", "torchvision") for name in found):
        assert box in TORCH or here == "seams", f"{here} imports torch, which belongs to {', '.join(TORCH)}"
    if box in MAY_IMPORT:
        ours = {name.split(".")[1] for name in found if name.startswith("orchestrator.")}
        above = ours - MAY_IMPORT[box] - {box} - SCRIPTS.get(here, set())
        assert not above, f"{here} imports {sorted(above)}"
    assert not any(name.split(".")[0] == "jobs" for name in found) or box == "jobs"


@pytest.mark.parametrize("path", FILES, ids=place)
def test_every_public_function_says_what_it_takes_and_gives(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            bare = [arg.arg for arg in arguments if arg is not None and arg.annotation is None and arg.arg not in ("self", "cls")]
            bare += [] if node.returns else ["return"]
            assert not bare, f"{place(path)}:{node.lineno} {node.name} lacks types of {bare}"
