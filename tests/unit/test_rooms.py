"""The rooms of the package: what may import what, and how large a file may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "circulant_attention"
# From the lowest to the highest; a name stands for a file or for a folder.
ROOMS = (
    "checks window geometry ops matrix similarity attention denoising nn distributed demo"
).split()
# What a function may import when it is called: packages that are optional or costly to import.
OPTIONAL = {"PIL", "imagecodecs", "imageio", "matplotlib", "scipy", "skimage", "tifffile", "tqdm"}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def room(module: str) -> str:
    """The room of a module; "" for the package itself and its command."""
    name = module.partition(".")[2].partition(".")[0]
    return "" if name == "__main__" else name


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """What a module imports: names of modules, and whether that is inside a function."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    # What is imported for types alone runs never.
    for branch in ast.walk(tree):
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING":
            branch.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else str(node.module) for name in modules]
        else:
            continue
        for name in names:
            yield name, id(node) in inside


IMPORTS = {module: list(imports(module)) for module in FILES}


def test_every_file_is_in_a_room():
    assert {room(module) for module in FILES} - {""} == set(ROOMS)


def test_no_room_imports_a_higher_one():
    found = [
        f"{module} imports {name}"
        for module, names in IMPORTS.items()
        for name, _ in names
        if room(module) and name in FILES
        if not room(name) or ROOMS.index(room(name)) > ROOMS.index(room(module))
    ]
    assert not found, "\n".join(found)


# Files of the package that need optional packages.
NEED_OPTIONAL = {"circulant_attention.demo.work"}


def test_functions_import_only_what_is_optional():
    found = [
        f"{module} imports {name} in a function"
        for module, names in IMPORTS.items()
        for name, inside in names
        if inside and module.partition(".")[2] != "__main__"
        if name.partition(".")[0] not in OPTIONAL and name not in NEED_OPTIONAL
    ]
    assert not found, "\n".join(found)


def test_imports_go_round_in_no_circle():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            # A file of a folder needs the folder's own, which runs first.
            parent = module.rpartition(".")[0]
            for name in [name for name, _ in IMPORTS[module] if name in FILES and name != parent]:
                visit(name, (*path, module))
            done.add(module)

    for module in FILES:
        visit(module, ())


@pytest.mark.parametrize(
    ("folder", "pattern", "most"),
    [("circulant_attention", "*.py", 400), ("csrc", "*.[chu]*", 300)],
)
def test_files_are_small(folder, pattern, most):
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / folder).rglob(pattern)
    }
    assert len(lines) > 20
    assert not {path: count for path, count in lines.items() if count > most}


def test_no_file_is_underscored():
    names = {part for path in FILES.values() for part in path.relative_to(PACKAGE).parts}
    assert not {n for n in names if n.startswith("_")} - {"__init__.py", "__main__.py"}


def test_the_root_holds_rooms_only():
    things = [path.name for path in PACKAGE.iterdir() if path.suffix not in (".so", ".typed")]
    things = [name for name in things if name != "__pycache__"]
    assert len(things) <= len(ROOMS) + len(["__init__.py", "__main__.py"]), sorted(things)
