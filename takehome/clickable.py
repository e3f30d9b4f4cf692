"""A circuit as one HTML file that stays clickable without a server.

Every state was measured beforehand (`backend.methods.knockouts`). The picture is the dashboard's
own component. The file asks nothing of any other machine, which its Content-Security-Policy also
says; words of models, circuits and prompts are escaped.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from math import isfinite
from pathlib import Path
from string import Template
from typing import Any

from backend.core.errors import UserError
from backend.core.statistics import Estimate
from backend.methods.knockouts import Example, Knockouts, KnockoutsRequest, Likeliest, removals
from backend.methods.requests import ABLATIONS
from backend.models import catalogue
from backend.studies.store import Header
from backend.tasks.chance import against_chance
from backend.tasks.setting import Reading
from circuitviz.charts import BEFORE, LOOKS
from circuitviz.component_files import CSS, HTML, SCRIPT
from circuitviz.graph import circuit_graph
from circuitviz.layout import circuit_layout
from circuitviz.picture import circuit_picture
from circuitviz.prompt import prompt_html
from circuitviz.provenance import evidence_of, scores_of
from takehome.citations import VERSION, Subject, bibtex
from takehome.edges import edge_weights

MOST_BYTES = 2_000_000
_FOLDER = Path(__file__).parent
_READINGS = {
    Reading.circuit: "Only the circuit runs: every other head is knocked out, at every token.",
    Reading.model: "The whole model runs, less the heads that you switch off.",
}
_LABELS = {
    Reading.circuit: ("Circuit", "Faithfulness", "P(right answer)"),
    Reading.model: ("Model minus heads", "Accuracy kept", "P(right answer)"),
}
_OFF_WORDS = {"mean": "knocked out", "zero": "zero", "resample": "patched"}


def clickable(request: KnockoutsRequest, found: Knockouts, header: Header) -> str:
    """The file, as text; `header` says when and with what it was measured.

    Raises UserError where it would be larger than 2 MB.
    """
    subject = Subject(
        request.circuit,
        catalogue.label(request.model),
        request.prompts,
        ABLATIONS[request.ablation],
        header.date[:10],
    )
    style = f"{_read('clickable.css')}\n{CSS}"
    script = f"{SCRIPT}\n{_read('clickable.js')}"
    page = Template(_read("clickable.html")).substitute(
        policy=_policy(style, script),
        version=VERSION,
        title=escape(f"Circuit “{request.circuit.name}” of {subject.model}"),
        subtitle=escape(f"{request.prompts.task.title}, {request.prompts}"),
        style=style,
        component=HTML,
        reading=_READINGS[request.reading],
        prompts="".join(_prompt(request, example) for example in found.examples),
        provenance=_listed(_provenance(request, found, header)),
        citation=escape(bibtex(subject)),
        data=_in_script(_data(request, found)),
        script=script,
    )
    if (n_bytes := len(page.encode())) > MOST_BYTES:
        raise UserError(
            f"The file would have {n_bytes / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f} MB. "
            "Choose a smaller circuit."
        )
    return page


def _policy(style: str, script: str) -> str:
    """Nothing but the style and the script of the file itself, and styles on its elements, which
    the component writes."""
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "style-src-attr 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _data(request: KnockoutsRequest, found: Knockouts) -> Mapping[str, Any]:
    circuit = request.circuit
    graph = circuit_graph(
        circuit,
        found.shape,
        scores_of(circuit, circuit.members),
        evidence=evidence_of(circuit, circuit.members),
        weights=edge_weights(circuit),
    )
    picture = circuit_picture(
        graph,
        circuit_layout(graph, found.shape),
        off_word=_OFF_WORDS[request.ablation.name],
        attention=False,
    )
    places = {node: place for place, node in enumerate(circuit.members)}
    return {
        "picture": picture.data,
        "n": found.whole_accuracy.n,
        "labels": _LABELS[request.reading],
        "looks": {"before": BEFORE, **LOOKS},
        "whole": _limits(found.whole_accuracy),
        "states": [
            [
                sorted(places[node] for node in off),
                *_limits(state.accuracy),
                *_limits(state.faithfulness),
                *_limits(state.probability),
            ]
            for off, state in zip(removals(circuit), found.states, strict=True)
        ],
        "examples": [
            {
                "columns": example.columns,
                "tokens": example.tokens,
                "states": [_flat(each) for each in example.states],
            }
            for example in found.examples
        ],
    }


def _limits(estimate: Estimate) -> list[float | None]:
    numbers = (estimate.value, estimate.low, estimate.high)
    return [round(number, 5) if isfinite(number) else None for number in numbers]


def _flat(likeliest: Likeliest) -> list[float]:
    pairs = zip(likeliest.tokens, likeliest.probabilities, strict=True)
    return [number for token, share in pairs for number in (token, round(share, 3))]


def _prompt(request: KnockoutsRequest, example: Example) -> str:
    roles = [role or None for role in example.roles]
    drawn = prompt_html(example.words, roles, request.prompts.task, example.answer)
    return drawn.replace('<div class="prompt">', '<div class="prompt" hidden>', 1)


def _provenance(
    request: KnockoutsRequest, found: Knockouts, header: Header
) -> Sequence[tuple[str, str]]:
    circuit, task = request.circuit, request.prompts.task
    sizes = ", ".join(
        f"{len(circuit.heads(group.key))} {group.name} ({group.key})"
        for group in task.reading_order
    )
    marks = [
        f"weights {mark.fingerprint.weights[:12]}"
        + (f", adapter {mark.fingerprint.adapter[:12]}" if mark.fingerprint.adapter else "")
        + f", {mark.fingerprint.precision}"
        for mark in header.models
    ]
    versions = ", ".join(f"{name} {number}" for name, number in header.versions.items())
    date = header.date[:16].replace("T", " ")
    means = f", means over {found.n_reference} other prompts"
    return [
        ("Circuit", f"{circuit.name}: {len(circuit.members)} heads, {sizes}"),
        ("Model", f"{catalogue.label(request.model)} ({'; '.join(marks)})"),
        ("Task", f"{task.title} ({task.source}): {request.prompts}"),
        ("What runs", _READINGS[request.reading]),
        (
            "A head that is off",
            ABLATIONS[request.ablation] + (means if request.ablation.name == "mean" else ""),
        ),
        (
            "Numbers",
            "Accuracy: the most probable of all tokens is the right answer. Faithfulness: accuracy "
            "of the circuit over that of the whole model. 95 % intervals: Wilson’s for shares, "
            "Nam and Blackwelder’s for the ratio; each for its own. The examples are the first "
            "prompts, right or wrong.",
        ),
        ("Whole model", against_chance(found.forced_choice)),
        ("Measured", f"{date} UTC, engine {header.engine}, {versions}"),
    ]


def _listed(pairs: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs)


def _in_script(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the element it stands in, nor begin another."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
