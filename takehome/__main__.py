"""A circuit as files, from the command line: `python -m takehome MODEL --html FILE …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from backend.commands.method_commands import add_choice, choice_of
from backend.commands.parts import (
    add_circuit,
    add_placement,
    add_prompts,
    measure,
    placement_of,
    prompts_of,
    read_circuit,
    say,
    writable,
)
from backend.core.errors import UserError
from backend.core.files import write_atomically
from backend.core.heads import ModelShape
from backend.methods.knockouts import KnockoutsRequest
from backend.methods.requests import ABLATIONS
from backend.models import catalogue, loaded_models, registry
from backend.models.model_config import blueprint
from backend.studies import studies
from backend.tasks.prompts import N_PROMPTS
from backend.tasks.setting import Reading
from circuitviz.svg import circuit_svg
from circuitviz.themes import DARK, LIGHT
from takehome.citations import Subject, bibtex, subject_of, today
from takehome.clickable import clickable
from takehome.graphs import ATTRIBUTION_SCHEMA, attribution_graph, graphml, worked
from takehome.pictures import pdf, png

_FILES = {
    "svg": "the picture, words as text",
    "png": "the picture, for slides",
    "pdf": "the picture, for a paper",
    "html": "a page that stays clickable without a server: every head, pair of heads and group is "
    "knocked out beforehand",
    "graphml": "the graph for networkx, Gephi and others, with scores",
    "attribution-graph": f"the graph on one prompt, in Neuronpedia’s JSON {ATTRIBUTION_SCHEMA}",
    "bibtex": "how to cite the paper, this tool and the circuit",
}
_WIDTH, _HEIGHT = 1200, 760


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files that are asked for; returns 0, or 1 after a message."""
    options = _parser().parse_args(arguments)
    asked = {kind: getattr(options, kind.replace("-", "_")) for kind in _FILES}
    wanted = {kind: path for kind, path in asked.items() if path}
    try:
        if not wanted:
            raise UserError(f"Say which file is wanted: --{', --'.join(_FILES)}.")
        loaded_models.place_by_default(placement_of(options))
        for kind, path in wanted.items():
            write_atomically(path, _MAKERS[kind](options))
            say(f"written to {path}")
    except UserError as error:
        say(f"error: {error}")
        return 1
    except OSError as error:
        say(f"error: {error.filename} cannot be written ({error.strerror}). Choose another file.")
        return 1
    except KeyboardInterrupt:
        say("\nstopped. What was finished is kept: the same command goes on from there.")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m takehome",
        description="A circuit as files. What has to be measured for them is kept, as by "
        "python -m backend.",
        epilog="example: python -m takehome base --circuit base --html circuit.html",
    )
    parser.add_argument("model", metavar="MODEL")
    add_circuit(parser)
    for kind, words in _FILES.items():
        parser.add_argument(f"--{kind}", type=writable, metavar="FILE", help=words)
    parser.add_argument("--dark", action="store_true", help="pictures on a dark background")
    parser.add_argument(
        "--reading",
        choices=[reading.name for reading in Reading],
        default=Reading.circuit.name,
        help="in the HTML file, what heads are taken out of: the circuit alone, or the whole model "
        "(default: circuit)",
    )
    add_choice(parser, "ablation", ABLATIONS)
    add_prompts(parser, N_PROMPTS)
    add_placement(parser)
    return parser


def _shape(options: argparse.Namespace) -> ModelShape:
    known = blueprint(registry.entry(options.model))
    return known.shape if known else loaded_models.load(options.model).shape


def _subject(options: argparse.Namespace) -> Subject:
    return subject_of(read_circuit(options), options.model, prompts_of(options), today())


def _attribution_graph(options: argparse.Namespace) -> str:
    loaded = loaded_models.load(options.model)
    prompts = prompts_of(options).sample(loaded.tokenizer)
    prompt = worked(prompts, 0, loaded.tokenizer.decode)
    return attribution_graph(_subject(options), loaded.shape, prompt)


def _svg(options: argparse.Namespace) -> str:
    circuit = read_circuit(options)
    shape = _shape(options)
    circuit.check(shape, catalogue.label(options.model))
    theme = DARK if options.dark else LIGHT
    return circuit_svg(circuit, shape, width=_WIDTH, height=_HEIGHT, theme=theme)


def _html(options: argparse.Namespace) -> str:
    request = KnockoutsRequest(
        options.model,
        read_circuit(options),
        prompts_of(options),
        Reading[options.reading],
        choice_of(options, "ablation", ABLATIONS),
    )
    (found,) = measure(request)
    stored = studies.find(request)
    if stored is None:
        raise UserError("The model’s files have changed meanwhile. Use the same command again.")
    return clickable(request, found, stored.entry.header)


_MAKERS: dict[str, Callable[[argparse.Namespace], str | bytes]] = {
    "svg": _svg,
    "png": lambda options: png(_svg(options)),
    "pdf": lambda options: pdf(_svg(options)),
    "html": _html,
    "graphml": lambda options: graphml(_subject(options), _shape(options)),
    "attribution-graph": _attribution_graph,
    "bibtex": lambda options: bibtex(_subject(options)),
}


if __name__ == "__main__":
    sys.exit(main())
