"""The rules of the layout, read from the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
MODULES = sorted(path for folder in ("slam_app", "pages") for path in (ROOT / folder).rglob("*.py"))
LAYERS = [
    {"domain", "errors", "config"},
    {"sandbox", "keys"},
    {"store", "providers", "prompts", "cases", "presets", "samples", "stats", "charts", "exports"},
    {"rating", "generation", "inventory", "jobs", "auth", "first_start", "headless"},
    {"routes", "server", "cli", "__main__", "ui", "main"},
    {"pages"},
]
STREAMLIT = {"ui", "main", "server", "pages"}
CLIENTS = {"ollama", "openai", "xllamacpp", "httpx", "httpx2"}
HEAVY = {"torch", "sentence_transformers", "tensorflow", "statsmodels", "sklearn", "xllamacpp"}


def part(path: Path) -> str:
    """The package or module of the layout that a file belongs to."""
    relative = path.relative_to(ROOT).with_suffix("").parts
    return relative[1] if relative[0] == "slam_app" else relative[0]


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(name: str) -> int:
    if name in ("__init__", "__version__"):
        return 0
    return next(number for number, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = layer(part(path))
    for name in imports(path):
        if name.startswith("slam_app."):
            assert layer(name.split(".")[1]) <= own, f"{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_library_stays_in_its_place(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path)}
    if part(path) not in STREAMLIT:
        assert "streamlit" not in roots
    if part(path) != "providers":
        assert not roots & CLIENTS
    if part(path) != "store":
        assert not roots & {"sqlite3", "pysqlite3", "sqlite_utils"}
    assert not {name.split(".")[0] for name in imports(path, top_level=True)} & HEAVY


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sql_stands_in_the_store_alone(path: Path) -> None:
    if part(path) == "store":
        return
    texts = [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    sql = re.compile(r"\b(SELECT .+ FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM|CREATE TABLE)\b", re.DOTALL)
    assert not [text for text in texts if sql.search(text)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= (150 if part(path) == "pages" else 300)


def test_no_module_takes_the_name_of_a_library_that_scripts_import() -> None:
    """Streamlit puts slam_app/ on sys.path when main.py runs."""
    own = {path.stem for path in (ROOT / "slam_app").iterdir()} - {"__init__", "__main__", "__pycache__"}
    assert not own & (set(sys.stdlib_module_names) | {"openai", "ollama", "streamlit", "pandas", "plotly"})


def test_the_readme_names_every_setting() -> None:
    source = (ROOT / "slam_app" / "config.py").read_text()
    readme = (ROOT / "README.md").read_text()
    names = set(re.findall(r'env\.get\("([A-Z_]+)"\)', source))
    assert len(names) >= 8
    assert {name for name in names if f"`{name}`" not in readme} == set()


def test_a_rater_costs_no_heavy_import() -> None:
    """What the server imports for rating pages, in a process of its own."""
    script = (
        "import sys\n"
        "import slam_app.server, slam_app.rating.session, slam_app.store.rater, slam_app.ui.auth\n"
        "from slam_app.server import _freeze\n"
        "_freeze()\n"
        f"print(sorted(set({sorted(HEAVY | {'openai', 'ollama'})!r}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
