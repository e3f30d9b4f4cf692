"""The subcommands that take a circuit apart, or compare it across models."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from backend import saved
from backend.catalogue import plain_name
from backend.circuit import Circuit, Group, Head, Position, Site
from backend.command_parts import (
    about,
    add_circuit,
    add_command,
    add_models,
    add_placement,
    add_prompts,
    checked_by,
    load,
    prompts_of,
    read_circuit,
    shown,
)
from backend.errors import UserError
from backend.results import Part

_TOKENS = (Position.prev_query_label, Position.query_label, Position.last)


def add_to(commands: Any) -> None:
    """Add compare, cmap, minimality, completeness and edges."""
    compare = add_command(
        commands,
        "compare",
        _compare,
        "one circuit in many models: accuracies, faithfulness, what each group is worth",
        "compare base arithmetic-lora arithmetic-full --prompts 500 --save family",
    )
    add_models(compare)
    compare.add_argument("--overlap", metavar="CIRCUIT", help="also count the heads shared with it")
    _add_rest(compare, 500)

    cmap = add_command(
        commands,
        "cmap",
        _cmap,
        "put heads of a source model into a target model (cross-model activation patching)",
        "cmap arithmetic-full base --sets A B A+B all --part output --save full-into-base",
    )
    cmap.add_argument("source", metavar="SOURCE")
    cmap.add_argument("target", metavar="TARGET")
    cmap.add_argument(
        "--sets",
        nargs="+",
        type=_groups,
        metavar="GROUPS",
        help="groups to transplant together, such as A+B, none or all (default: none D C B A all)",
    )
    cmap.add_argument(
        "--heads",
        nargs="+",
        type=_sites,
        default=[],
        metavar="HEADS",
        help=f"heads to transplant together, such as L4.0@last+L3.1@query_label; tokens: "
        f"{', '.join(token.name for token in _TOKENS)}",
    )
    cmap.add_argument("--map", action="store_true", help="also every single head at every token")
    cmap.add_argument(
        "--part",
        choices=Part.__members__,
        default="output",
        help="what of a head: its output, q, k or v (default: output)",
    )
    _add_rest(cmap, 500)

    minimality = add_command(
        commands,
        "minimality",
        _minimality,
        "what every head adds to a circuit, and the circuit of those that add enough",
        "minimality base --circuit base --least 0.01",
    )
    minimality.add_argument("model", metavar="MODEL")
    minimality.add_argument(
        "--least", type=float, default=0.01, help="a kept head adds this share (default: 0.01)"
    )
    minimality.add_argument(
        "--removed",
        type=_share,
        default=0.3,
        help="share of a group removed with each head (default: 0.3)",
    )
    _add_rest(minimality, 100)

    completeness = add_command(
        commands,
        "completeness",
        _completeness,
        "whether circuit and model lose heads alike",
        "completeness base --circuit base --sets 20",
    )
    completeness.add_argument("model", metavar="MODEL")
    completeness.add_argument(
        "--sets", type=_count, default=20, help="random sets of heads (default: 20)"
    )
    _add_rest(completeness, 500)

    edges = add_command(
        commands,
        "edges",
        _edges,
        "how much flows from each head to each head of the next group, by path patching",
        "edges base --circuit base --prompts 100 --save base-edges",
    )
    edges.add_argument("model", metavar="MODEL")
    _add_rest(edges, 100)


def _add_rest(parser: argparse.ArgumentParser, n: int) -> None:
    add_circuit(parser)
    add_prompts(parser, n)
    add_placement(parser)
    parser.add_argument(
        "--save",
        type=checked_by(plain_name),
        metavar="NAME",
        help="keep it as cache/local/results/NAME.json, where the pages find it",
    )


def _compare(options: argparse.Namespace) -> Any:
    from backend.compare import compare, examine, overlap

    circuit = read_circuit(options.circuit)
    other = read_circuit(options.overlap) if options.overlap else None
    subjects = [examine(load(options, name), *prompts_of(options)) for name in options.models]
    result = {
        "result": compare(subjects, circuit, options.seed, progress=shown("comparing")),
        "overlap": overlap(circuit, other) if other else {},
    }
    return _kept(options, "compare", circuit, result)


def _cmap(options: argparse.Namespace) -> Any:
    from backend.cmap import GROUP_SETS, cmap, group_sets, head_map
    from backend.compare import examine

    circuit = read_circuit(options.circuit)
    models = [load(options, name) for name in (options.source, options.target)]
    circuit.check(models[1].shape, models[1].name)
    source, target = (examine(model, *prompts_of(options)) for model in models)
    part = Part[options.part]
    sets = group_sets(circuit, options.sets or GROUP_SETS) | dict(options.heads)
    result: dict[str, Any] = {
        "result": cmap(source, target, sets, part, shown("transplanting sets"))
    }
    if options.map:
        result["map"] = head_map(source, target, part=part, progress=shown("transplanting heads"))
    return _kept(options, "cmap", circuit, result)


def _minimality(options: argparse.Namespace) -> Any:
    from backend.compare import examine
    from backend.minimality import minimal_circuit, minimality

    circuit = read_circuit(options.circuit)
    subject = examine(load(options, options.model), *prompts_of(options))
    found = minimality(subject, circuit, options.removed, shown("removing heads"))
    smaller = minimal_circuit(circuit, found, options.least)
    kept = {group.name: smaller.heads(group) for group in Group}
    result = {"removed": options.removed, "least": options.least, "kept": kept, "result": found}
    return _kept(options, "minimality", circuit, result)


def _completeness(options: argparse.Namespace) -> Any:
    from backend.compare import examine
    from backend.completeness import completeness

    circuit = read_circuit(options.circuit)
    subject = examine(load(options, options.model), *prompts_of(options))
    found = completeness(subject, circuit, options.sets, options.seed, shown("removing heads"))
    return _kept(options, "completeness", circuit, {"sets": options.sets, "result": found})


def _edges(options: argparse.Namespace) -> Any:
    from backend.reports import edges_report

    circuit = read_circuit(options.circuit)
    loaded = load(options, options.model)
    found = edges_report(loaded, circuit, *prompts_of(options), shown("weighing edges"))
    return _kept(options, "edges", circuit, {"result": found})


def _kept(
    options: argparse.Namespace, command: str, circuit: Circuit, result: dict[str, Any]
) -> dict[str, Any]:
    result = about(options) | {"circuit": replace(circuit, provenance={}).as_data()} | result
    if options.save:
        saved.save(options.save, command, result)
    return result


def _groups(text: str) -> tuple[Group, ...]:
    if text in ("none", "all"):
        return tuple(Group) if text == "all" else ()
    letters = text.split("+")
    if not set(letters) <= Group.__members__.keys():
        raise argparse.ArgumentTypeError(f"“{text}” is not like A+B, none or all")
    return tuple(Group[letter] for letter in letters)


def _sites(text: str) -> tuple[str, frozenset[Site]]:
    tokens = {token.name: token for token in _TOKENS}
    sites = set()
    for place in text.split("+"):
        head, _, token = place.partition("@")
        try:
            sites.add(Site(Head.parse(head), tokens[token]))
        except (UserError, KeyError) as error:
            raise argparse.ArgumentTypeError(f"“{place}” is not like L4.0@last") from error
    return text, frozenset(sites)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"“{text}” is not a share from 0 to 1")
    return share


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"“{text}” is not a whole number from 0 on")
    return int(text)
