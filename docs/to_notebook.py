"""Make `docs/notebook.ipynb` of `docs/notebook.py`, whose cells begin with `# %%`.

Those of text begin with `# %% [markdown]`, and stand in comments.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("notebook.py")


_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebook(text: str) -> str:
    """The notebook whose cells a text holds, as JSON, with nothing run yet."""
    parts = re.split(r"(?m)^# %%(.*)\n", text)[1:]
    cells = [
        _cell(number, kind.strip() == "[markdown]", body.strip())
        for number, (kind, body) in enumerate(zip(parts[::2], parts[1::2], strict=True))
    ]
    whole = {
        "cells": cells,
        "metadata": {"kernelspec": _KERNEL},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _cell(number: int, is_text: bool, body: str) -> dict[str, Any]:
    if is_text:
        body = re.sub(r"(?m)^# ?", "", body)
    cell = {"id": f"cell-{number}", "metadata": {}, "source": body.splitlines(keepends=True)}
    if is_text:
        return {"cell_type": "markdown", **cell}
    return {"cell_type": "code", **cell, "execution_count": None, "outputs": []}


if __name__ == "__main__":
    text = notebook(SOURCE.read_text(encoding="utf-8"))
    SOURCE.with_suffix(".ipynb").write_text(text, encoding="utf-8")
