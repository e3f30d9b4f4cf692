"""The sections of the Paper page, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shell.paper import paper, paper_figures, paper_functions

SECTIONS: Mapping[str, Callable[[str], None]] = {
    "Circuit": paper.show_circuit,
    "Scores": paper.show_scores,
    "Faithfulness": paper_figures.show_faithfulness,
    "CMAP": paper_figures.show_cmap,
    "Completeness": paper_figures.show_completeness,
    "Minimality": paper_figures.show_minimality,
    "DCM": paper_functions.show_desiderata,
    "Attention knockout": paper_functions.show_knockout,
}
