"""A circuit for other tools and for a bibliography, to take home."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.core.heads import ModelShape
from backend.models import loaded_models
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts
from shell.frame.take_home import File, Origin
from takehome.citations import Subject, bibtex, subject_of, today

if TYPE_CHECKING:
    from backend.models.elsewhere import RemoteModel
    from backend.models.loading import LoadedModel


def graph_files(
    circuit: Circuit, model: str, prompts: Prompts, shape: ModelShape | None, page: str
) -> list[File]:
    """GraphML, the JSON of attribution graphs and BibTeX; the second needs the model loaded."""
    origin, subject = Origin(page, (model,), prompts), subject_of(circuit, model, prompts, today())
    files = []
    if shape:
        files.append(
            File(
                "GraphML",
                origin.name(circuit.name, "graphml"),
                "application/xml",
                lambda: _graphml(subject, shape),
            )
        )
    if loaded := loaded_models.loaded_anywhere(model):
        files.append(
            File(
                "Attribution graph",
                origin.name(f"{circuit.name} attribution graph", "json"),
                "application/json",
                lambda: _attribution_graph(subject, loaded),
            )
        )
    name = origin.name(circuit.name, "bib")
    return [*files, File("BibTeX", name, "application/x-bibtex", lambda: bibtex(subject))]


def _graphml(subject: Subject, shape: ModelShape) -> str:
    from takehome.graphs import graphml

    return graphml(subject, shape)


def _attribution_graph(subject: Subject, loaded: LoadedModel | RemoteModel) -> str:
    """On the first of the prompts."""
    from takehome.graphs import attribution_graph, worked

    prompts = subject.prompts.sample(loaded.tokenizer)
    return attribution_graph(subject, loaded.shape, worked(prompts, 0, loaded.tokenizer.decode))
