"""Attention knockout: where a model needs one token's attention to another.

The score of a query token to a key token is −∞ in all heads, or in chosen ones, of the layers from
ℓ on, or of a window of layers that begins at ℓ; accuracy against ℓ (Geva et al. 2023; Prakash et
al., attention knockout). Where cutting from ℓ on does no harm any more, what the edge carries has
arrived below ℓ. A random earlier token as the key is the control: some attention is lost in any
cut.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from backend.core.arguments import whole
from backend.core.errors import UserError
from backend.core.estimates import change, figure
from backend.core.heads import Head, Site, check_sites
from backend.core.kept import Kept
from backend.core.metrics import Metric
from backend.core.progress import Plan, Progress, Report, Step, silent, step_of
from backend.core.statistics import Estimate, clear_among
from backend.methods.asking import loaded, not_done
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import scale_of
from backend.methods.requests import METRICS
from backend.models import catalogue
from backend.tasks.attention_edges import RANDOM, AttentionEdge
from backend.tasks.chance import ForcedChoice
from backend.tasks.edge_tokens import check_backward, tokens_of, with_random_tokens
from backend.tasks.prompts import N_PROMPTS, Prompts
from backend.tasks.registry import task_named
from backend.tasks.task import Task

if TYPE_CHECKING:
    from torch import Tensor

    from backend.methods.evaluation import Batch, Questions
    from backend.models.loading import LoadedModel

MOST_LAYERS = 1000
_AT_ONCE = 8


@dataclass(frozen=True)
class AttentionKnockoutRequest:
    """Which edges are cut: in all heads, if there are none, from each layer on, or in a window.

    Raises UserError for edges that there cannot be.
    """

    models: tuple[str, ...]
    prompts: Prompts
    edges: tuple[AttentionEdge, ...]
    heads: frozenset[Head] = frozenset()
    window: int | None = None
    metric: Metric = Metric.accuracy

    def __post_init__(self) -> None:
        if not self.edges:
            raise UserError("No pair of tokens is given. Choose at least one to cut.")
        if self.window is not None and not 1 <= self.window <= MOST_LAYERS:
            raise UserError(
                f"A window has 1 to {MOST_LAYERS} layers, not {self.window}. Choose another."
            )
        for edge in self.edges:
            check_edge(self.prompts.task, edge)


@dataclass(frozen=True)
class Curve:
    """An edge that is cut from each layer on: what is measured, and its change by the cut."""

    edge: AttentionEdge
    by_layer: tuple[Estimate, ...]
    change: tuple[Estimate, ...]


@dataclass(frozen=True)
class AttentionKnockout:
    """What a model answers with attention cut, edge by edge; whole: with nothing cut."""

    whole: Estimate
    curves: tuple[Curve, ...]
    choice: ForcedChoice

    @property
    def choices(self) -> tuple[ForcedChoice]:
        """How the untouched model does beside guessing."""
        return (self.choice,)

    @property
    def clear(self) -> tuple[tuple[bool, ...], ...]:
        """Of each curve, which changes are clear among all of them together."""
        flags = iter(clear_among([each for curve in self.curves for each in curve.change]))
        return tuple(tuple(next(flags) for _ in curve.change) for curve in self.curves)


def check_edge(task: Task, edge: AttentionEdge) -> None:
    """Raise UserError for an edge between tokens that the task does not name, or of one token."""
    for name, known in ((edge.query, task.edge_tokens), (edge.key, (*task.edge_tokens, RANDOM))):
        if name not in known:
            raise UserError(
                f"{task.title} has no token “{name[:40]}” here. Choose of {', '.join(known)}."
            )
    if edge.query == edge.key:
        raise UserError("A pair has two different tokens. Choose another query or key.")


def attention_knockout(
    model: LoadedModel,
    request: AttentionKnockoutRequest,
    progress: Progress = silent,
    kept_in: Kept | None = None,
) -> AttentionKnockout:
    """Every edge cut from every layer on; finished batches are kept in a folder, if there is one.

    Raises UserError where there is nothing to cut, and for heads that the model does not have.
    """
    from backend.methods.evaluation import Evaluation

    check_sites(_checked(request), model.shape, catalogue.label(model.name))
    prompts = with_random_tokens(request.prompts.sample(model.tokenizer), request.edges)
    for edge in request.edges:
        check_backward(prompts, edge)
    n_layers, n_heads, *_ = model.shape
    evaluation = Evaluation(model, prompts, prompts)
    cuts = [
        _sites(edge, start, n_layers, n_heads, request)
        for edge in request.edges
        for start in range(n_layers)
    ]
    cost = sum(evaluation.scale.knockouts(1, e.query, range(n_layers)) for e in request.edges)

    def ask(batch: Batch, some: Questions) -> Iterator[Tensor]:
        return _answered(batch, some, request, (n_layers, n_heads))

    metric = request.metric
    rows = evaluation.answered([(), *cuts], ask, cost, progress, kept_in, metric)
    untouched, *cut = rows
    curves = [
        Curve(
            edge,
            tuple(figure(metric, row) for row in cut[start : start + n_layers]),
            tuple(change(metric, row, untouched) for row in cut[start : start + n_layers]),
        )
        for edge, start in zip(request.edges, range(0, len(cut), n_layers), strict=True)
    ]
    return AttentionKnockout(figure(metric, untouched), tuple(curves), evaluation.choice)


def _sites(
    edge: AttentionEdge, start: int, n_layers: int, n_heads: int, request: AttentionKnockoutRequest
) -> frozenset[Site]:
    """The heads that are cut, as sites at the edge."""
    stop = n_layers if request.window is None else min(n_layers, start + request.window)
    heads = (Head(layer, index) for layer in range(start, stop) for index in range(n_heads))
    return frozenset(
        Site(head, str(edge)) for head in heads if not request.heads or head in request.heads
    )


def _answered(
    batch: Batch, cuts: Questions, request: AttentionKnockoutRequest, size: tuple[int, int]
) -> Iterator[Tensor]:
    """Rows of the metric, some at a time, of cuts of one edge after the other."""
    import torch

    from backend.engine.activation_patching import clean_logits
    from backend.engine.attention_knockout import knocked_out_logits

    known, home = {str(edge): edge for edge in request.edges}, batch.clean.tokens.device

    def mask(cut: Collection[Site]) -> Tensor:
        chosen = torch.zeros(size, dtype=torch.bool)
        for (layer, index), _ in cut:
            chosen[layer, index] = True
        return chosen

    for name, of_edge in groupby(cuts, _edge_of):
        masks = [mask(cut) for cut in of_edge]
        if not name:
            untouched = batch.measured(clean_logits(batch.clean)[None], request.metric)
            yield untouched.repeat(len(masks), 1)
            continue
        query, key = (
            torch.tensor(tokens, device=home) for tokens in tokens_of(batch.prompts, known[name])
        )
        for start in range(0, len(masks), _AT_ONCE):
            heads = torch.stack(masks[start : start + _AT_ONCE]).to(home)
            logits = knocked_out_logits(batch.clean, query, key, heads)
            yield batch.measured(logits, request.metric)


def _edge_of(cut: Collection[Site]) -> str:
    """The edge that is cut; none where no head is."""
    return next((site.position for site in cut), "")


def _plan(request: AttentionKnockoutRequest) -> Plan:
    def step(name: str) -> Step:
        scale, n = scale_of(name, request.prompts), request.prompts.n
        layers = range(scale.n_layers)
        cuts = sum(scale.knockouts(n, edge.query, layers) for edge in request.edges)
        return Step(f"Cutting attention in {catalogue.label(name)}", scale.runs(n) + cuts)

    return [[step(name)] for name in request.models]


def _work(
    request: AttentionKnockoutRequest, done: Finished, report: Report, unfinished: Unfinished
) -> Iterator[AttentionKnockout]:
    plan = _plan(request)
    for place, name in not_done(request.models, done):
        model = loaded(name, report, plan, place)
        told = step_of(report, plan, place, 0)
        yield attention_knockout(model, request, told, unfinished(place))


def edge_words(task: Task, edge: AttentionEdge) -> str:
    """An edge in words: “last token → correct object”."""
    return f"{task.token_words(edge.query)} → {task.token_words(edge.key)}"


def _rows(
    request: AttentionKnockoutRequest, place: int, part: AttentionKnockout
) -> Iterator[Figure]:
    model, task = catalogue.label(request.models[place]), request.prompts.task
    yield Figure(f"{model}, nothing cut", METRICS[request.metric], part.whole)
    for curve in part.curves:
        for layer, estimate in enumerate(curve.by_layer):
            item = f"{model}, {edge_words(task, curve.edge)}"
            yield Figure(item, f"cut {_where(request, layer)}", estimate)


def _where(request: AttentionKnockoutRequest, layer: int) -> str:
    if request.window is None:
        return f"from layer {layer} on"
    return f"in {request.window} layers from {layer} on"


def _settings(request: AttentionKnockoutRequest) -> str:
    told = [", ".join(edge_words(request.prompts.task, edge) for edge in request.edges)]
    if request.heads:
        told.append(f"heads {', '.join(map(str, sorted(request.heads)))}")
    if request.window is not None:
        told.append(f"in a window of {request.window} layers")
    return "; ".join(told)


def _checked(request: AttentionKnockoutRequest) -> Collection[Site]:
    return [Site(head, "any token") for head in sorted(request.heads)]


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--edges",
        type=_edges,
        metavar="QUERY:KEY,…",
        help="pairs of named tokens, such as last:correct_object; the key may be random (default: "
        "the task's own)",
    )
    parser.add_argument(
        "--heads", type=_heads, default=frozenset(), metavar="L3.0,…", help="only these heads"
    )
    parser.add_argument(
        "--window",
        type=whole(1, MOST_LAYERS),
        help="so many layers are cut (default: all from the first on)",
    )


def _edges(text: str) -> tuple[AttentionEdge, ...]:
    pairs = [pair.split(":") for pair in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise ArgumentTypeError("write pairs as last:correct_object,last:random")
    return tuple(AttentionEdge(*pair) for pair in pairs)


def _heads(text: str) -> frozenset[Head]:
    try:
        return frozenset(map(Head.parse, text.split(",")))
    except UserError as error:
        raise ArgumentTypeError(str(error)) from error


def _fields(options: Namespace, _: Any) -> Mapping[str, Any]:
    return {"edges": options.edges or task_named(options.task).edges}


METHOD = Method(
    "attention-knockout",
    "Attention knockout",
    AttentionKnockoutRequest,
    lambda request: (AttentionKnockout,) * len(request.models),
    _plan,
    _work,
    _rows,
    _settings,
    sites=_checked,
    command=Command(
        "where models need one token’s attention to another",
        "attention-knockout base chat --edges last:correct_object,last:random",
        N_PROMPTS,
        _arguments,
        _fields,
    ),
)
