"""Adding a model of one's own, a GGUF file too, which is made a folder first."""

from __future__ import annotations

from backend.core.errors import UserError
from backend.core.progress import Report
from backend.models import registry
from backend.models.gguf_folders import gguf_at
from backend.models.registry import Entry


def add_model(
    name: str,
    source: str,
    adapter: str = "",
    finetuned_on: str = "",
    label: str = "",
    *,
    report: Report,
) -> Entry:
    """Add a model under a plain name, and return it; takes as long as a GGUF file takes to read.

    Raises UserError like `registry.add`, and for a GGUF file that cannot be read.
    """
    if file := gguf_at(source):
        registry.check_is_free(name)
        report("Starting the engine", 0.0)
        from backend.models.gguf_conversion import convert

        source = str(convert(file, report))
    return registry.add(name, source, adapter, finetuned_on, label)


def is_gguf(source: str) -> bool:
    """Whether a source is a GGUF file, or a folder of some."""
    try:
        return gguf_at(source) is not None
    except UserError:
        return True
