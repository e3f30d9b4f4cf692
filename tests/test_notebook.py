"""The notebook runs as it stands, and is what its text says."""

from __future__ import annotations

import runpy

from docs.to_notebook import SOURCE, notebook


def test_the_notebook_is_that_of_its_text() -> None:
    text = SOURCE.read_text(encoding="utf-8")
    assert SOURCE.with_suffix(".ipynb").read_text(encoding="utf-8") == notebook(text)


def test_the_notebook_runs_from_a_model_to_a_picture() -> None:
    ran = runpy.run_path(str(SOURCE))
    assert ran["circuit"].members
