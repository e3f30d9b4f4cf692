"""What holds of every method that is listed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import is_dataclass

import pytest

from backend.methods.registry import METHODS
from tests.dashboard import ROOT


def test_what_pages_import_of_methods_imports_no_torch() -> None:
    code = (
        "import sys, backend.methods.rows, backend.studies.studies; "
        "sys.exit(bool({'torch', 'transformers', 'safetensors'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_one_file(name: str) -> None:
    method = METHODS[name]
    assert method.name == name
    assert is_dataclass(method.request)
    home = {each.__module__ for each in (method.request, method.plan, method.work, method.rows)}
    assert len(home) == 1


def test_no_two_methods_answer_the_same_request() -> None:
    assert len({method.request for method in METHODS.values()}) == len(METHODS)
