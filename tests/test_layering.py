"""The floors of the house: a package imports only from floors below it, and no imports go round in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "kernels": set[str](),
    "grammars": set[str](),
    "engine": {"kernels", "grammars"},
    "router_model": set[str](),
    "gateway": {"engine", "grammars", "router_model"},
}
HEAVY = {"litestar", "xgrammar", "outlines_core", "llguidance"}


def modules(package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Names of the modules that a file imports; `from a import b` is `a.b` where that is a module, else `a`."""
    tree = ast.parse(path.read_text(), str(path))
    names = set[str]()
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor; use absolute ones"
            base = node.module or ""
            for alias in node.names:
                inner = ROOT.joinpath(*base.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").exists()
                names.add(f"{base}.{alias.name}" if is_module else base)
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_from_floors_below(package: str) -> None:
    ours = set(MAY_IMPORT) | {"bundled_models", "benchmarks", "migrations", "tests"}
    allowed = MAY_IMPORT[package] | {package}
    if package == "gateway":
        allowed |= {
            "bundled_models",
            "migrations",
        }  # the default pair's folder, and the revisions that `migrate` applies
    for name, path in modules(package):
        above = {n for n in imported(path) if n.split(".")[0] in ours - allowed}
        assert not above, f"{name} imports {sorted(above)}"


def test_imports_have_no_cycles() -> None:
    known = {name for package in MAY_IMPORT for name, _ in modules(package)}
    graph = {
        name: {n for n in runtime_imports(path) if n in known and n != name}
        for package in MAY_IMPORT
        for name, path in modules(package)
    }
    done, open_ = set[str](), list[str]()

    def visit(name: str) -> None:
        if name in done:
            return
        assert name not in open_, f"import cycle: {' -> '.join([*open_[open_.index(name) :], name])}"
        open_.append(name)
        for other in sorted(graph[name]):
            visit(other)
        open_.pop()
        done.add(name)

    for name in sorted(graph):
        visit(name)


def runtime_imports(path: Path) -> set[str]:
    """Module-level imports that run: those under `if TYPE_CHECKING` and inside functions do not."""
    return imported(path, top_level_only=True)


@pytest.mark.parametrize("package", ["kernels", "engine", "grammars"])
def test_a_bare_machine_can_import_the_floors_below_the_gateway(package: str) -> None:
    for name, path in modules(package):
        heavy = {n for n in imported(path, top_level_only=True) if n.split(".")[0] in HEAVY}
        assert not heavy or name.endswith("_backend"), f"{name} imports {sorted(heavy)} at module level"


def test_nothing_imports_pickle() -> None:
    for package in MAY_IMPORT:
        for name, path in modules(package):
            bad = {n for n in imported(path) if n.split(".")[0] in {"pickle", "dill", "cloudpickle", "marshal"}}
            assert not bad, f"{name} imports {sorted(bad)}: messages are msgspec, weights are safetensors"
