"""BibTeX for the paper, this tool and a result of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts

PAPER = """@inproceedings{prakash2024finetuning,
  title     = {Fine-Tuning Enhances Existing Mechanisms: A Case Study on Entity Tracking},
  author    = {Prakash, Nikhil and Shaham, Tamar Rott and Haklay, Tal and Belinkov, Yonatan and
               Bau, David},
  booktitle = {The Twelfth International Conference on Learning Representations},
  year      = {2024},
  note      = {arXiv:2402.14811}
}
"""
VERSION = "0.1.0"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_SPECIAL = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


@dataclass(frozen=True)
class Subject:
    """A circuit and where it was measured: model is what it is called, date an ISO day."""

    circuit: Circuit
    model: str
    prompts: Prompts
    how: str
    date: str


def subject_of(circuit: Circuit, model: str, prompts: Prompts, date: str) -> Subject:
    """A circuit as it was found, or came."""
    found = circuit.provenance.get("date")
    day = found if isinstance(found, str) and _DAY.fullmatch(found) else date
    return Subject(circuit, catalogue.label(model), prompts, "path patching", day)


def today() -> str:
    """The day now, in UTC: “2026-11-27”."""
    return datetime.now(UTC).date().isoformat()


def bibtex(subject: Subject) -> str:
    """The paper, the tool, and the result, each an entry."""
    year = subject.date[:4]
    tool = f"""@software{{circuitexplorer,
  title   = {{Circuit explorer}},
  version = {{{VERSION}}},
  year    = {{{year}}},
  note    = {{Apache-2.0}}
}}
"""
    n_heads = len(subject.circuit.members)
    result = f"""@misc{{{_key(subject)},
  title        = {{Circuit “{_text(subject.circuit.name)}” of {_text(subject.model)}}},
  howpublished = {{Circuit explorer {VERSION}}},
  year         = {{{year}}},
  note         = {{{_text(subject.prompts.task.title)}, {_text(subject.prompts)}, {n_heads} heads,
                  {_text(subject.how)}, {_text(subject.date)}}}
}}
"""
    return "\n".join([PAPER, tool, result])


def _key(subject: Subject) -> str:
    """Letters and digits only: “circuitbaseoftiny2026”."""
    return re.sub(r"[^A-Za-z0-9]", "", f"circuit{subject.circuit.name}{subject.date[:4]}")


def _text(words: object) -> str:
    line = " ".join(str(words).split())
    return "".join(_SPECIAL.get(letter, letter) for letter in line if letter.isprintable())
