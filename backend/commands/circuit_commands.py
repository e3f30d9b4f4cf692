"""The subcommands that take a circuit apart, or compare it across models."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from backend.commands.parts import (
    add_circuit,
    add_command,
    add_models,
    add_placement,
    add_prompts,
    check_heads,
    measure,
    number,
    prompts_of,
    read_circuit,
    whole,
)
from backend.core.circuit import Circuit, Group, Head, Position, Site
from backend.core.components import Component
from backend.core.errors import UserError
from backend.core.files import shown
from backend.methods.requests import (
    CmapRequest,
    ComparisonRequest,
    CompletenessRequest,
    EdgesRequest,
    MinimalityRequest,
    NamedSets,
    heads_of,
)
from backend.studies import studies

_TOKENS = (Position.prev_query_label, Position.query_label, Position.last)


def add_to(commands: Any) -> None:
    """Add compare, cmap, minimality, completeness and edges."""
    compare = add_command(
        commands,
        "compare",
        _compare,
        "one circuit in many models: accuracies, faithfulness, what each group is worth",
        "compare base arithmetic-lora arithmetic-full --prompts 500 --out family.json",
    )
    add_models(compare)
    compare.add_argument("--overlap", metavar="CIRCUIT", help="also count the heads shared with it")
    _add_rest(compare, 500)

    cmap = add_command(
        commands,
        "cmap",
        _cmap,
        "put heads of a source model into a target model (cross-model activation patching)",
        "cmap arithmetic-full base --sets A B A+B all --part output --map",
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
        choices=Component.__members__,
        default="output",
        help="what of a head: its output, q, k or v (default: output); k and v are those of all "
        "tokens that it sees, its own included, which the authors’ code leaves as it is",
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
        "--least",
        type=number(0, 100),
        default=0.01,
        help="a kept head adds this share (default: 0.01)",
    )
    minimality.add_argument(
        "--removed",
        type=number(0, 1),
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
        "--sets", type=whole(0, 10_000), default=20, help="random sets of heads (default: 20)"
    )
    _add_rest(completeness, 500)

    edges = add_command(
        commands,
        "edges",
        _edges,
        "how much flows from each head to each head of the next group, by path patching",
        "edges base --circuit base --prompts 100",
    )
    edges.add_argument("model", metavar="MODEL")
    _add_rest(edges, 100)


def _add_rest(parser: argparse.ArgumentParser, n: int) -> None:
    add_circuit(parser)
    add_prompts(parser, n)
    add_placement(parser)


def _compare(options: argparse.Namespace) -> Any:
    circuit = read_circuit(options.circuit)
    other = read_circuit(options.overlap) if options.overlap else None
    request = ComparisonRequest(tuple(options.models), heads_of(circuit), prompts_of(options))
    result = studies.as_data(request, measure(request))
    if not other:
        return result
    from backend.methods.compare import overlap

    return result | {"overlap": overlap(circuit, other)}


def _cmap(options: argparse.Namespace) -> Any:
    circuit = read_circuit(options.circuit)
    request = CmapRequest(
        options.source,
        options.target,
        heads_of(circuit),
        Component[options.part],
        prompts_of(options),
        tuple(options.heads),
    )
    check_heads(request)  # before torch is there
    request = replace(request, sets=_sets(circuit, options))
    return studies.as_data(request, measure(request, None if options.map else 1))


def _sets(circuit: Circuit, options: argparse.Namespace) -> NamedSets:
    """The sets that are asked for; none stands for the usual ones."""
    if not options.sets and not options.heads:
        return ()
    from backend.methods.cmap import GROUP_SETS, group_sets

    sets = group_sets(circuit, options.sets or GROUP_SETS) | dict(options.heads)
    return tuple(sets.items())


def _minimality(options: argparse.Namespace) -> Any:
    circuit = read_circuit(options.circuit)
    request = MinimalityRequest(
        options.model, heads_of(circuit), prompts_of(options), options.removed
    )
    (found,) = parts = measure(request)
    from backend.methods.minimality import minimal_circuit

    smaller = minimal_circuit(circuit, found, options.least)
    kept = {group.name: smaller.heads(group) for group in Group}
    return studies.as_data(request, parts) | {"least": options.least, "kept": kept}


def _completeness(options: argparse.Namespace) -> Any:
    heads = heads_of(read_circuit(options.circuit))
    request = CompletenessRequest(options.model, heads, prompts_of(options), options.sets)
    return studies.as_data(request, measure(request))


def _edges(options: argparse.Namespace) -> Any:
    heads = heads_of(read_circuit(options.circuit))
    request = EdgesRequest(options.model, heads, prompts_of(options))
    return studies.as_data(request, measure(request))


def _groups(text: str) -> tuple[Group, ...]:
    if text in ("none", "all"):
        return tuple(Group) if text == "all" else ()
    letters = text.split("+")
    if not set(letters) <= Group.__members__.keys():
        raise argparse.ArgumentTypeError(f"“{shown(text)[:40]}” is not like A+B, none or all")
    return tuple(Group[letter] for letter in letters)


def _sites(text: str) -> tuple[str, frozenset[Site]]:
    tokens = {token.name: token for token in _TOKENS}
    sites = set()
    for place in text.split("+"):
        head, _, token = place.partition("@")
        try:
            sites.add(Site(Head.parse(head), tokens[token]))
        except (UserError, KeyError) as error:
            raise argparse.ArgumentTypeError(
                f"“{shown(place)[:40]}” is not like L4.0@last"
            ) from error
    return text, frozenset(sites)
