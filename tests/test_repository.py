"""The repository as a whole: tidy, without what must not be in it, with links that lead
somewhere."""

import json
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import HOME

TRACKED = subprocess.run(
    ["git", "-C", str(HOME), "ls-files", "-z"], capture_output=True, text=True
).stdout.split("\0")[:-1]
FILES = [HOME / name for name in TRACKED if (HOME / name).exists()] or [
    p
    for p in HOME.rglob("*")
    if p.is_file() and not {".venv", ".git", "runs", "data"} & set(p.relative_to(HOME).parts)
]
TEXTS = [
    p
    for p in FILES
    if p.suffix in {".py", ".md", ".toml", ".yml", ".yaml", ".ipynb", ".txt", ".cff"}
]


def test_ruff_finds_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "."],
        cwd=HOME,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_mypy_finds_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", tmp_path],
        cwd=HOME,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", [p for p in FILES if p.suffix == ".md"], ids=lambda p: p.name)
def test_local_links_lead_somewhere(page):
    for target in re.findall(r"\]\(<?([^)#>]+?)>?(?:#[^)]*)?\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target.replace("%20", " ").replace("%2C", ",")).exists(), (
                f"{page.name}: {target}"
            )


def test_every_module_says_on_its_first_line_what_it_is_for():
    for path in FILES:
        if path.suffix == ".py":
            assert path.read_text().startswith('"""'), path


def test_nothing_names_a_place_of_one_persons_machine():
    pattern = re.compile(r"/(?:work|root|home|Users)/[a-z]")
    for path in TEXTS:
        found = pattern.search(path.read_text(errors="replace"))
        assert not found or path.name == "test_repository.py", (path, found and found.group())


def test_no_file_is_larger_than_a_clone_deserves():
    for path in FILES:
        assert path.stat().st_size < 8e6, path


def test_the_lock_has_allowed_versions():
    from packaging.requirements import Requirement

    project = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [
        Requirement(line)
        for line in (
            *project["dependencies"],
            *extras["train"],
            *extras["notebooks"],
            *extras["test"],
        )
    ]
    locked = re.findall(
        r"^([\w.-]+)==([^ ;]+)", (HOME / ".ci" / "requirements.lock").read_text(), re.MULTILINE
    )
    for requirement in wanted:
        versions = [version for name, version in locked if name == requirement.name]
        assert versions or requirement.name in ("torch", "facial-keypoints"), (
            f"{requirement.name} is not in requirements.lock"
        )
        assert all(requirement.specifier.contains(version) for version in versions), (
            requirement.name
        )


def test_the_code_is_formatted():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--check", "--no-cache", "."],
        cwd=HOME,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_pre_commit_and_the_lock_have_the_same_ruff():
    locked = re.search(
        r"^ruff==(\S+)", (HOME / ".ci" / "requirements.lock").read_text(), re.MULTILINE
    )[1]
    assert f"rev: v{locked}" in (HOME / ".pre-commit-config.yaml").read_text()


def test_nothing_is_fetched_at_import():
    """Every module, network and detector is imported where connecting to anything is an error;
    optional packages may lack."""
    folders = (
        HOME,
        *(
            HOME / name
            for name in ("facial_keypoints", "research", "models", "detector_architectures")
        ),
    )
    modules = sorted(
        {
            ".".join(path.relative_to(HOME).with_suffix("").parts)
            for path in FILES
            if path.suffix == ".py"
            and (path.parent in folders or path.is_relative_to(HOME / "research"))
            and path.stem not in ("__init__", "__main__")
        }
    )
    assert {
        "data_load",
        "models.models5",
        "detector_architectures.haar",
        "research.data.frames",
    } <= set(modules)
    script = f"""
import importlib, socket
def refuse(*address):
    raise SystemExit(f"an import asks for {{address}}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
for name in {modules}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        assert error.name and error.name.split(".")[0] not in {modules}, error
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=HOME, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


PRIVATE_WORDS = (  # words that have a standard term: the table of terms in docs/architecture.md
    r"answers?|half[- ]hidden|lattice|spoiled|own crops|drawn faces?|invented|judged?|believed|"
    r"told|taught|beside|whole or not at all|by heart"
)


def test_texts_use_the_standard_terms():
    """In code, documents and the texts of notebooks; outputs, model cards and this file apart."""
    found = []
    for path in TEXTS:
        if path.name == "test_repository.py":
            continue
        text = path.read_text()
        if path.suffix == ".ipynb":
            text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
        found += [
            f"{path.name}: {line.strip()[:80]}"
            for line in text.splitlines()
            if re.search(rf"\b({PRIVATE_WORDS})\b", line, re.I)
        ]
    assert not found
