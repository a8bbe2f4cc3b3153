"""Measures the structure of a checkout: rooms, imports, names, complexity, length of functions."""

import argparse
import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
ROOT = ("data_load", "models", "train", "evaluate", "pipeline", "batch")
FOLDERS = ("facial_keypoints", "research", "benchmarks", "scripts", "detector_architectures")
BRANCHES = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.IfExp, ast.Assert, ast.comprehension)
MAX_COMPLEXITY, MAX_LINES = 20, 60


def source_files(home: Path) -> list[Path]:
    """The modules of the project, without tests."""
    listed = subprocess.run(
        ["git", "-C", str(home), "ls-files", "*.py"], capture_output=True, text=True, check=True
    )
    paths = [home / line for line in listed.stdout.splitlines()]
    return [
        path
        for path in paths
        if path.exists()
        and path.relative_to(home).parts[0] in (*FOLDERS, *(f"{n}.py" for n in ROOT))
    ]


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """All functions and methods of a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node


def complexity(function: ast.FunctionDef) -> int:
    """Cyclomatic complexity (McCabe, 1976): one more than the number of branches."""
    branches = sum(isinstance(node, BRANCHES) for node in ast.walk(function))
    operators = sum(
        len(node.values) - 1 for node in ast.walk(function) if isinstance(node, ast.BoolOp)
    )
    return 1 + branches + operators


def our_imports(path: Path, home: Path) -> set[str]:
    """Names of modules of this project that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if (home / name.replace(".", "/")).with_suffix(".py").is_file():
                found.add(name)
    return found


def measure(home: Path) -> dict[str, object]:
    """{what is measured: value}."""
    paths = source_files(home)
    texts = [path.read_text() for path in paths]
    loose = [p for p in (home / "research").glob("*.py") if p.stem != "__init__"]
    names = Counter(path.stem for path in paths if path.stem != "__init__")
    twins = sorted(name for name, count in names.items() if count > 1)
    every = [(path, function) for path in paths for function in functions(path)]
    complex_ones = [f.name for _, f in every if complexity(f) > MAX_COMPLEXITY]
    long_ones = [f.name for _, f in every if f.end_lineno - f.lineno >= MAX_LINES]
    return {
        "modules of research outside a room": len(loose),
        "lines of train.py": len((home / "train.py").read_text().splitlines()),
        "modules of ours that train.py imports": len(our_imports(home / "train.py", home)),
        "train.py imports evaluate.py": "evaluate" in our_imports(home / "train.py", home),
        "comments `noqa`": sum(len(re.findall(r"#\s*noqa", text)) for text in texts),
        "lines with `Any`": sum(
            bool(re.search(r"\bAny\b", line)) for text in texts for line in text.splitlines()
        ),
        "module names that occur twice": f"{len(twins)} ({', '.join(twins)})",
        f"functions with a complexity above {MAX_COMPLEXITY}": len(complex_ones),
        f"functions of more than {MAX_LINES} lines": len(long_ones),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=HOME, help="(default: this one)")
    for name, value in measure(parser.parse_args().folder.resolve()).items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
