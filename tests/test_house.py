"""The repository as a whole: tidy, without what must not be in it, with links that lead somewhere."""

import re
import subprocess
import sys

import pytest
from conftest import HOME

TRACKED = subprocess.run(["git", "-C", str(HOME), "ls-files", "-z"], capture_output=True, text=True).stdout.split("\0")[:-1]
FILES = [HOME / name for name in TRACKED if (HOME / name).exists()] or [
    p for p in HOME.rglob("*") if p.is_file() and not {".venv", ".git", "runs", "data"} & set(p.relative_to(HOME).parts)]
TEXTS = [p for p in FILES if p.suffix in {".py", ".md", ".toml", ".yml", ".yaml", ".ipynb", ".txt", ".cff"}]


def test_ruff_finds_nothing():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "."], cwd=HOME, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", [p for p in FILES if p.suffix == ".md"], ids=lambda p: p.name)
def test_local_links_lead_somewhere(page):
    for target in re.findall(r"\]\(<?([^)#>]+?)>?(?:#[^)]*)?\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target.replace("%20", " ").replace("%2C", ",")).exists(), f"{page.name}: {target}"


def test_every_module_says_on_its_first_line_what_it_is_for():
    for path in FILES:
        if path.suffix == ".py":
            assert path.read_text().startswith('"""'), path


def test_modules_stay_short():
    for path in FILES:
        if path.suffix == ".py" and "tests" not in path.parts:
            assert len(path.read_text().splitlines()) <= 350, path


def test_nothing_names_a_place_of_one_persons_machine():
    pattern = re.compile(r"/(?:work|root|home|Users)/[a-z]")
    for path in TEXTS:
        found = pattern.search(path.read_text(errors="replace"))
        assert not found or path.name == "test_house.py", (path, found and found.group())


def test_no_file_is_larger_than_a_clone_deserves():
    for path in FILES:
        assert path.stat().st_size < 8e6, path


def test_the_lock_holds_a_version_that_requirements_allow_of_everything_but_torch():
    from packaging.requirements import Requirement

    wanted = [Requirement(line.split("#")[0]) for line in (HOME / "requirements.txt").read_text().splitlines()
              if line.split("#")[0].strip()]
    locked = re.findall(r"^([\w.-]+)==([^ ;]+)", (HOME / "requirements.lock").read_text(), re.MULTILINE)
    for requirement in wanted:
        versions = [version for name, version in locked if name == requirement.name]
        assert versions or requirement.name == "torch", f"{requirement.name} is not in requirements.lock"
        assert all(requirement.specifier.contains(version) for version in versions), requirement.name


def test_nothing_is_fetched_at_import():
    """Every module, network and detector is imported where connecting to anything is an error; optional packages may lack."""
    modules = sorted({".".join(path.relative_to(HOME).with_suffix("").parts) for path in FILES if path.suffix == ".py"
                      and path.parent in (HOME, HOME / "models", HOME / "detector_architectures")} - {"models.__init__"})
    assert {"data_load", "models.models5", "detector_architectures.haar"} <= set(modules)
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
