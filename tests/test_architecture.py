"""The rules of docs/architecture.md: one direction of imports, no cycles, a library without
PyTorch, plug-ins."""

import ast
import functools
import re
import subprocess
from pathlib import Path

import pytest
from conftest import HOME

LAYERS = {
    "facial_keypoints": 0,
    "research": 1,
    "data_load": 2,
    "models": 2,
    "train": 3,
    "evaluate": 3,
    "pipeline": 3,
    "batch": 3,
    "benchmarks": 4,
    "scripts": 4,
}
DOORS = {"datasets", "web_page"}  # of research: the only modules outside of its rooms
HEAVY = {
    "torch",
    "pandas",
    "matplotlib",
    "IPython",
    "ipywidgets",
    "jupyter",
    "papermill",
    "nbformat",
}
MAX_ROOT_ENTRIES = 26


def modules():
    """{name: path} of the modules of this project; plug-ins and tests apart."""
    found = {path.stem: path for path in HOME.glob("*.py")}
    for folder in ("facial_keypoints", "research", "benchmarks", "scripts"):
        found |= {
            ".".join(path.relative_to(HOME).with_suffix("").parts): path
            for path in (HOME / folder).rglob("*.py")
        }
    return {name.removesuffix(".__init__"): path for name, path in found.items()}


MODULES = modules()


@functools.cache
def imports_of(path):
    """Names of all modules that a file imports, inside functions as well: `from a import b` gives a
    and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                found.add("." * node.level + (node.module or ""))
            else:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def arrows():
    """{module: modules of this project that it imports}."""
    return {
        name: {other for other in imports_of(path) if other in MODULES}
        for name, path in MODULES.items()
    }


def layer(name):
    return LAYERS[name.partition(".")[0]]


@pytest.mark.parametrize("name", MODULES)
def test_nothing_imports_upward(name):
    for other in arrows()[name]:
        assert layer(other) <= layer(name), f"{name} imports {other}"


def test_there_are_no_cycles_also_none_inside_functions():
    graph, done = arrows(), set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in graph[name] - {name}:
                # a module of a package may import the package's own names
                if other != name.partition(".")[0]:
                    visit(other, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def rooms():
    """{room of research: rooms that its modules import}."""
    graph = {}
    for name, others in arrows().items():
        room = name.split(".")[1] if name.count(".") == 2 else ""
        if name.startswith("research.") and room:
            graph.setdefault(room, set()).update(
                other.split(".")[1]
                for other in others
                if other.startswith("research.") and other.split(".")[1] not in DOORS
            )
    return {room: others - {room} for room, others in graph.items()}


def test_research_has_rooms_without_circles():
    loose = {path.stem for path in (HOME / "research").glob("*.py")} - {"__init__"}
    assert loose == DOORS
    left = rooms()
    while left:
        free = {room for room, others in left.items() if not others & left.keys()}
        assert free, f"a circle among {sorted(left)}"
        left = {room: others for room, others in left.items() if room not in free}


def test_the_rooms_are_drawn_as_they_are():
    text = (HOME / "docs" / "architecture.md").read_text()
    drawn = set(re.findall(r"^  (\w+) --> (\w+)$", text, re.M))
    assert drawn == {(room, other) for room, others in rooms().items() for other in others}


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("facial_keypoints")])
def test_the_library_imports_nothing_heavy(name):
    assert not {other.partition(".")[0] for other in imports_of(MODULES[name])} & HEAVY


@pytest.mark.parametrize("path", sorted((HOME / "models").glob("*.py")), ids=lambda path: path.stem)
def test_networks_import_nothing_else_of_ours(path):
    ours = {name.partition(".")[0] for name in imports_of(path)} & {
        name.partition(".")[0] for name in MODULES
    }
    assert not ours, (
        "a network imports PyTorch, and at most another network: from . import models5; "
        f"{path.stem}: {ours}"
    )


@pytest.mark.parametrize(
    "path", sorted((HOME / "detector_architectures").glob("*.py")), ids=lambda path: path.stem
)
def test_detectors_import_the_library_alone(path):
    ours = {name.partition(".")[0] for name in imports_of(path)} & {
        name.partition(".")[0] for name in MODULES
    }
    assert ours <= {"facial_keypoints"}, path.stem


def without_hints(body, prefix=""):
    """Names of public functions and methods that lack a type hint."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from without_hints(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and (
            node.name in ("__init__", "__call__") or not node.name.startswith("_")
        ):
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            untyped = [a for a in arguments if not a.annotation and a.arg not in ("self", "cls")]
            if untyped or (node.returns is None and node.name != "__init__"):
                yield prefix + node.name


@pytest.mark.parametrize(
    "path",
    [path for name, path in MODULES.items() if not name.startswith(("benchmarks", "scripts"))]
    + sorted(HOME.glob("models/*.py"))
    + sorted(HOME.glob("detector_architectures/*.py")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_public_functions_have_type_hints(path):
    assert not list(without_hints(ast.parse(path.read_text()).body))


def test_the_root_is_short_and_keeps_the_original_names():
    tracked = subprocess.run(
        ["git", "-C", HOME, "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True
    ).stdout
    entries = {
        Path(line.strip('"')).parts[0]
        for line in tracked.splitlines()
        if (HOME / line.strip('"')).exists()
    }
    visible = {name for name in entries or set(MODULES) if not name.startswith(".")}
    assert len(visible) <= MAX_ROOT_ENTRIES, sorted(visible)
    assert (
        not entries
        or {
            "notebooks",
            "models",
            "data_load.py",
            "models.py",
            "saved_models",
            "detector_architectures",
            "requirements.txt",
            "README.md",
            "tests",
            "train.py",
            "evaluate.py",
            "pipeline.py",
            "batch.py",
        }
        <= visible
    )
