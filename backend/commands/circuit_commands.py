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
    known_groups,
    measure,
    named_circuit,
    number,
    prompts_of,
    read_circuit,
    whole,
)
from backend.core.components import Component
from backend.core.errors import UserError
from backend.core.files import shown
from backend.core.heads import Head, Site
from backend.methods.cmap import CmapRequest, NamedSets
from backend.methods.compare import ComparisonRequest
from backend.methods.completeness import CompletenessRequest
from backend.methods.edges import EdgesRequest
from backend.methods.minimality import MinimalityRequest
from backend.studies import studies
from backend.tasks.circuit import Circuit
from backend.tasks.registry import TASKS
from backend.tasks.task import Task


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
        default=[],
        metavar="GROUPS",
        help="groups to transplant together, such as A+B, none or all (default: none D C B A all)",
    )
    cmap.add_argument(
        "--heads",
        nargs="+",
        type=_sites,
        default=[],
        metavar="HEADS",
        help=f"heads to transplant together, such as L4.0@last; tokens: {_tokens()}",
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
    circuit = read_circuit(options)
    other = named_circuit(options.overlap) if options.overlap else None
    if other:
        other.check_task(circuit.task)
    request = ComparisonRequest(tuple(options.models), circuit, prompts_of(options))
    result = studies.as_data(request, measure(request))
    if not other:
        return result
    from backend.methods.compare import overlap

    return result | {"overlap": overlap(circuit, other)}


def _cmap(options: argparse.Namespace) -> Any:
    circuit = read_circuit(options)
    request = CmapRequest(
        options.source,
        options.target,
        circuit,
        Component[options.part],
        prompts_of(options),
        tuple(options.heads),
    )
    _check_sets(options, circuit.task)
    check_heads(request)  # before torch is there
    request = replace(request, sets=_sets(circuit, options))
    return studies.as_data(request, measure(request, None if options.map else 1))


def _sets(circuit: Circuit, options: argparse.Namespace) -> NamedSets:
    """The sets that are asked for; none stands for the usual ones."""
    if not options.sets and not options.heads:
        return ()
    from backend.methods.cmap import group_sets

    wanted = [circuit.task.keys if keys == ("all",) else keys for keys in options.sets]
    sets = group_sets(circuit, wanted) | dict(options.heads)
    return tuple(sets.items())


def _minimality(options: argparse.Namespace) -> Any:
    circuit = read_circuit(options)
    request = MinimalityRequest(options.model, circuit, prompts_of(options), options.removed)
    (found,) = parts = measure(request)
    from backend.methods.minimality import minimal_circuit

    smaller = minimal_circuit(circuit, found, options.least)
    kept = {key: smaller.heads(key) for key in circuit.task.keys}
    return studies.as_data(request, parts) | {"least": options.least, "kept": kept}


def _completeness(options: argparse.Namespace) -> Any:
    heads = read_circuit(options)
    request = CompletenessRequest(options.model, heads, prompts_of(options), options.sets)
    return studies.as_data(request, measure(request))


def _edges(options: argparse.Namespace) -> Any:
    heads = read_circuit(options)
    request = EdgesRequest(options.model, heads, prompts_of(options))
    return studies.as_data(request, measure(request))


def _groups(text: str) -> tuple[str, ...]:
    keys = () if text == "none" else (text,) if text == "all" else tuple(text.split("+"))
    if text not in ("none", "all") and not {*keys} <= known_groups():
        raise argparse.ArgumentTypeError(f"“{shown(text)[:40]}” is not like A+B, none or all")
    return keys


def _sites(text: str) -> tuple[str, frozenset[Site]]:
    sites = set()
    for place in text.split("+"):
        head, _, token = place.partition("@")
        try:
            site = Site(Head.parse(head), token)
            known = {name for task in TASKS.values() for name in task.position_names}
            if token not in known:
                raise UserError(token)
            sites.add(site)
        except UserError as error:
            raise argparse.ArgumentTypeError(
                f"“{shown(place)[:40]}” is not like L4.0@last"
            ) from error
    return text, frozenset(sites)


def _tokens() -> str:
    """The tokens of every task, in words."""
    return "; ".join(f"{', '.join(task.position_names)} ({name})" for name, task in TASKS.items())


def _check_sets(options: argparse.Namespace, task: Task) -> None:
    """Raise UserError for groups and tokens that the task does not have."""
    known = {*task.keys, "all"}
    for key in (key for keys in options.sets for key in keys if key not in known):
        raise UserError(
            f"{task.title} has no group “{shown(key)}”. Choose of {', '.join(task.keys)}."
        )
    tokens = {site.position for _, sites in options.heads for site in sites}
    for token in sorted(tokens - {*task.position_names}):
        raise UserError(
            f"{task.title} has no token “{shown(token)[:40]}”. Choose of "
            f"{', '.join(task.position_names)}."
        )
