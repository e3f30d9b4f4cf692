"""`pip install -e .`: what it needs, what it brings, and that importing `backend` is cheap."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.dashboard import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_COMPILED = shutil.ignore_patterns("__pycache__")
EXTRAS = PROJECT["optional-dependencies"]


def by_name(lines: Iterable[str]) -> dict[str, Requirement]:
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(each.name): each for each in found if each.name != PROJECT["name"]}


def pinned(file: str) -> dict[str, Requirement]:
    lines = (ROOT / file).read_text().splitlines()
    return by_name(line for line in lines if not line.startswith("-r "))


def check(needed: dict[str, Requirement], pins: dict[str, Requirement]) -> None:
    assert pins.keys() == needed.keys()
    for name, pin in pins.items():
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert needed[name].specifier.contains(exact.version), name


def test_what_is_needed_is_pinned_for_make_and_ci() -> None:
    check(by_name(PROJECT["dependencies"] + EXTRAS["app"]), pinned("requirements.txt"))
    check(by_name(EXTRAS["test"]), pinned("requirements-test.txt"))


def test_what_is_installed_is_the_engine_and_its_drawings_with_all_their_files(
    tmp_path: Path,
) -> None:
    for folder in ("backend", "circuitviz", "takehome", "shell", "pages", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=_COMPILED)
    ours = {
        str(path.relative_to(tmp_path))
        for folder in ("backend", "circuitviz", "takehome")
        for path in (tmp_path / folder).rglob("*")
        if path.is_file()
    }
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "."],
        cwd=tmp_path,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == ours


def test_importing_backend_imports_neither_torch_nor_streamlit() -> None:
    code = "import sys, backend; assert not {'torch', 'transformers', 'streamlit'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
