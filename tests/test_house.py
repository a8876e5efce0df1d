"""The laws of the house: who may import whom, style, types, and how long a file is.

pytest alone is the full check of this repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent
PACKAGES = ("rlplay", "agents", "envs")
FILES = sorted(file for package in PACKAGES for file in (HOME / package).rglob("*.py"))
IMPORTS = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
MAX_LINES = 450


def run(*command: str, folder: Path = HOME) -> subprocess.CompletedProcess[str]:
    """Run a Python tool in a folder; return its exit code and all that it said."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_imports_go_one_way():
    result = run("-c", IMPORTS)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("rlplay/core.py", "import rlplay.play"),
        ("rlplay/train.py", "import agents.uniform"),
        ("agents/uniform.py", "import envs.atari"),
    ],
)
def test_import_the_wrong_way_is_seen(tmp_path, file, line):
    """The negative control of the law above."""
    for package in PACKAGES:
        shutil.copytree(HOME / package, tmp_path / package)
    shutil.copy(HOME / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a") as opened:
        opened.write(f"\n{line}\n")
    result = run("-c", IMPORTS, folder=tmp_path)
    assert result.returncode == 1, result.stdout
    assert "BROKEN" in result.stdout


@pytest.mark.parametrize("words", ["check", "format --check"])
def test_style_is_kept(words):
    result = run("-m", "ruff", *words.split())
    assert result.returncode == 0, result.stdout


def test_types_are_right():
    result = run("-m", "pyright")
    assert result.returncode == 0, result.stdout


def test_importing_a_package_runs_nothing():
    inits = [file for file in FILES if file.name == "__init__.py"]
    assert len(inits) >= len(PACKAGES)
    assert [str(file) for file in inits if file.read_text()] == []


def test_no_file_is_too_long_to_be_read_at_once():
    lengths = {str(file.relative_to(HOME)): len(file.read_text().splitlines()) for file in FILES}
    assert {file: n for file, n in lengths.items() if n > MAX_LINES} == {}
    assert len(lengths) > 20


def test_every_file_says_what_it_is():
    without = [str(file) for file in FILES if file.stat().st_size and file.read_text()[:3] != '"""']
    assert without == []
