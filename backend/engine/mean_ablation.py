"""*Circuit only*: what the circuit does alone, with everything else knocked out.

Every head outside the circuit is set to its mean at every token (Prakash et al., circuit
evaluation), to zero, or to what it gives in the counterfactual (`backend.core.metrics.Ablation`).
Circuits work at a few tokens, so the other tokens are the same for all circuits: their keys and
values are computed once, as an ablated run, and each circuit costs a run over those few, from the
first layer in which it is not what has run already. With every head at its mean nothing passes
from token to token, so the ablated run itself runs each word once at each place where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor, nn

from backend.core.heads import Site
from backend.engine.architectures import decoder, last_logits, logits_of, shape_of, widths
from backend.engine.finite import check_finite
from backend.engine.hooks import Edit, at_tokens, edited_head_outputs, recorded_head_outputs
from backend.engine.positions import input_ids, position_means, position_tokens, site_mask
from backend.engine.replay import Context, full_run, replay, replay_layers
from backend.engine.validation import can_take_apart
from backend.tasks.prompts import PromptSet

CIRCUITS_AT_ONCE = 8
"""Or half as many, or a quarter: so a block of so many is the same runs wherever it is made."""
_NUMBERS_AT_ONCE = 2 << 20
"""Of an MLP's inside, of all prompts: few are enough to keep a processor busy with large models."""
_BY_TOKEN = 3
"""Axes of what heads are given by token, the same for all prompts."""


@dataclass(frozen=True, eq=False)
class AblatedRun:
    """A model with every head knocked out, ready for circuits to be switched on.

    input_ids [n, seq]; tokens [n, n_positions], where the task's `positions` are; off_values
    [n_layers, n, n_positions, n_heads, d_head], what a head gives there when it is not on; rest,
    what heads give at other tokens: all that comes of it, or, where everything is run whole, their
    outputs by layer, [seq, n_heads, d_head] or, if prompts differ in them, [n, seq, n_heads,
    d_head].
    """

    model: nn.Module
    input_ids: Tensor
    tokens: Tensor
    positions: tuple[str, ...]
    off_values: Tensor
    rest: _OtherTokens | tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class _OtherTokens:
    """What circuits do not change, keys and values of other tokens; and a run to start from.

    In it the sites of `on` compute freely, none to begin with: entering[l] [n, n_positions,
    d_model] enters layer l at the task's tokens, the last leaves the last layer. Where heads were
    given other values since, layers above are left out.
    """

    context: Context
    on: frozenset[Site]
    entering: tuple[Tensor, ...]


def prepare_ablated_run(model: nn.Module, prompts: PromptSet, means: Tensor) -> AblatedRun:
    """Run the prompts with every head at its mean; `means` [n_layers, seq, n_heads, d_head]."""
    return _prepared(ablated_to_run_whole(model, prompts, means))


def prepare_resampled_run(
    model: nn.Module, prompts: PromptSet, counterfactual: PromptSet
) -> AblatedRun:
    """Run the prompts with every head giving what it gives in each prompt's own counterfactual.

    At the task's tokens it is that of the counterfactual's own, at others that of the same token.
    Raises UserError where head outputs are not finite.
    """
    return _prepared(resampled_to_run_whole(model, prompts, counterfactual))


def ablated_to_run_whole(model: nn.Module, prompts: PromptSet, means: Tensor) -> AblatedRun:
    """`prepare_ablated_run` without the run: every question runs the prompts whole."""
    return _to_run_whole(model, prompts, tuple(means), position_means(means, prompts))


def resampled_to_run_whole(
    model: nn.Module, prompts: PromptSet, counterfactual: PromptSet
) -> AblatedRun:
    """`prepare_resampled_run` without the run of the prompts: every question runs them whole."""
    heads = _head_outputs(model, counterfactual)
    tokens = position_tokens(model, counterfactual)
    off_values = torch.stack([at_tokens(each, tokens) for each in heads])
    return _to_run_whole(model, prompts, heads, off_values)


@torch.no_grad()
def _head_outputs(model: nn.Module, prompts: PromptSet) -> tuple[Tensor, ...]:
    """Of a plain run, by layer, not put together: there is room for them once."""
    ids = input_ids(model, prompts)
    with recorded_head_outputs(model) as heads:
        decoder(model)(input_ids=ids, use_cache=False)
    return tuple(check_finite(each) for each in heads)


def _to_run_whole(
    model: nn.Module, prompts: PromptSet, heads: tuple[Tensor, ...], off_values: Tensor
) -> AblatedRun:
    ids, tokens = input_ids(model, prompts), position_tokens(model, prompts)
    return AblatedRun(model, ids, tokens, prompts.task.position_names, off_values, heads)


def _prepared(whole: AblatedRun) -> AblatedRun:
    if isinstance(whole.rest, tuple) and can_take_apart(whole.model):
        return replace(whole, rest=_other_tokens(whole, whole.rest))
    return whole


@torch.no_grad()
def _other_tokens(ablated_run: AblatedRun, given: tuple[Tensor, ...]) -> _OtherTokens:
    model, ids, tokens = ablated_run.model, ablated_run.input_ids, ablated_run.tokens
    others = torch.ones_like(ids, dtype=torch.bool).scatter(1, tokens, False)
    other_tokens = others.nonzero()[:, 1].view(len(ids), -1)
    if given[0].dim() == _BY_TOKEN:
        return _word_by_word(ablated_run, given, other_tokens)
    with edited_head_outputs(model, _alone(ablated_run, given, ())):
        run = full_run(model, ids)
    entering = tuple(at_tokens(residual, tokens) for residual in run.residuals)
    return _OtherTokens(run.context.at(other_tokens), frozenset(), entering)


def _word_by_word(
    ablated_run: AblatedRun, given: tuple[Tensor, ...], other_tokens: Tensor
) -> _OtherTokens:
    """`_other_tokens` where all prompts are given the same: each word runs once at each place.

    other_tokens [n, t]: where the tokens that are not the task's are.
    """
    model, ids, tokens = ablated_run.model, ablated_run.input_ids, ablated_run.tokens
    length = ids.shape[1]
    words, used = (ids * length + torch.arange(length, device=ids.device)).unique(
        return_inverse=True
    )
    # In rows as long as a prompt: attention is computed, though nothing of it is used.
    rows = torch.nn.functional.pad(words, (0, -len(words) % length), value=int(words[-1]))
    rows = rows.view(-1, length)
    with edited_head_outputs(model, lambda layer, _: given[layer][rows % length]):
        run = full_run(model, rows // length, rows % length)

    def at(table: Tensor, places: Tensor) -> Tensor:
        return table.flatten(0, 1)[used.gather(1, places)]

    keys, values = (
        tuple(at(each.transpose(1, 2), other_tokens).transpose(1, 2).contiguous() for each in one)
        for one in (run.context.keys, run.context.values)
    )
    entering = tuple(at(residual, tokens) for residual in run.residuals)
    return _OtherTokens(Context(keys, values, other_tokens), frozenset(), entering)


@torch.no_grad()
def with_circuit(ablated_run: AblatedRun, on: Collection[Site]) -> AblatedRun:
    """The same run, in which these sites have computed freely: circuits like it start from there.

    It answers the same to every circuit, faster to those that are this one in the first layers.
    """
    if isinstance(rest := ablated_run.rest, tuple):
        return ablated_run
    mask = site_mask(shape_of(ablated_run.model), on, ablated_run.positions)
    start = _first_layer(rest.on.symmetric_difference(on), len(rest.entering) - 1)
    entering = list(rest.entering[: start + 1])
    with edited_head_outputs(ablated_run.model, _switch_off(ablated_run, mask[:, None])):
        entering += replay_layers(
            ablated_run.model, entering[-1], ablated_run.tokens, rest.context, start
        )
    return replace(ablated_run, rest=replace(rest, on=frozenset(on), entering=tuple(entering)))


def with_circuits(ablated_run: AblatedRun, circuits: Sequence[Collection[Site]]) -> AblatedRun:
    """`with_circuit` of all of them together, where that saves something."""
    return with_circuit(ablated_run, _in_any(circuits)) if len(circuits) > 1 else ablated_run


def with_values(ablated_run: AblatedRun, sites: Collection[Site], values: Tensor) -> AblatedRun:
    """The ablated run in which these sites, while off, take `values` instead of the mean.

    values [n_layers, n, n_positions, n_heads, d_head], of a counterfactual or another model.
    """
    mask = site_mask(shape_of(ablated_run.model), sites, ablated_run.positions)
    chosen, rest = mask.to(values.device), ablated_run.rest
    off_values = torch.where(chosen[:, None, ..., None], values, ablated_run.off_values)
    if not isinstance(rest, tuple):
        changed = _first_layer(frozenset(sites) - rest.on, len(rest.entering) - 1)
        rest = replace(rest, entering=rest.entering[: changed + 1])
    return replace(ablated_run, off_values=off_values, rest=rest)


def circuit_logits(ablated_run: AblatedRun, on: Collection[Site]) -> Tensor:
    """Logits at the last token [n, vocab] when only these sites compute freely."""
    return circuits_logits(ablated_run, [on])[0]


@torch.no_grad()
def circuits_logits(ablated_run: AblatedRun, circuits: Sequence[Collection[Site]]) -> Tensor:
    """`circuit_logits` of several circuits in one run: [n_circuits, n, vocab]."""
    model, rest, tokens = ablated_run.model, ablated_run.rest, ablated_run.tokens
    if isinstance(rest, tuple):
        return torch.stack([_run_whole(ablated_run, rest, sites) for sites in circuits])
    shape, n = shape_of(model), len(circuits)
    on = torch.stack([site_mask(shape, sites, ablated_run.positions) for sites in circuits], 1)
    every = [frozenset(sites) for sites in circuits]
    in_all, in_any = frozenset.intersection(*every), _in_any(every)
    start = _first_layer((in_any - rest.on) | (rest.on - in_all), len(rest.entering) - 1)
    parting = max(start, _first_layer(in_any - in_all, shape.n_layers)) if n > 1 else start
    rows = rest.entering[start]
    with edited_head_outputs(model, _switch_off(ablated_run, on[:, :1])):
        for left in replay_layers(model, rows, tokens, rest.context, start, parting):
            rows = left
    with edited_head_outputs(model, _switch_off(ablated_run, on)):
        final = replay(model, rows.repeat(1, n, 1), tokens, rest.context, parting, variants=n)
    return logits_of(model, final.transpose(0, 1))


def _first_layer(sites: Collection[Site], most: int) -> int:
    """The first layer with one of these sites, or `most` if that is lower."""
    return min((most, *(site.head.layer for site in sites)))


def _switch_off(ablated_run: AblatedRun, on: Tensor) -> Edit:
    """Give sites of rows that are not on their values; on [n_layers, k, n_positions, n_heads]."""
    on = on.to(ablated_run.tokens.device)

    def switch_off(layer: int, heads: Tensor) -> Tensor:
        by_circuit = heads.unflatten(1, on.shape[1:3])
        off_values = ablated_run.off_values[layer][:, None]
        return torch.where(on[layer][..., None], by_circuit, off_values).flatten(1, 2)

    return switch_off


def _run_whole(ablated_run: AblatedRun, rest: tuple[Tensor, ...], on: Collection[Site]) -> Tensor:
    """Logits [n, vocab] when only these sites compute freely, by one run of the whole prompts."""
    with edited_head_outputs(ablated_run.model, _alone(ablated_run, rest, on)):
        return last_logits(ablated_run.model, ablated_run.input_ids)


def alone(ablated_run: AblatedRun, on: Collection[Site]) -> Edit:
    """Head outputs of the whole prompts when only these sites compute freely.

    Raises ValueError for a run that was prepared.
    """
    if not isinstance(ablated_run.rest, tuple):
        raise ValueError("its prompts are not run whole")
    return _alone(ablated_run, ablated_run.rest, on)


def _alone(ablated_run: AblatedRun, rest: tuple[Tensor, ...], on: Collection[Site]) -> Edit:
    mask = site_mask(shape_of(ablated_run.model), on, ablated_run.positions).to(
        ablated_run.tokens.device
    )
    prompts = torch.arange(len(ablated_run.tokens), device=ablated_run.tokens.device)

    def switch_off(layer: int, heads: Tensor) -> Tensor:
        given = rest[layer].expand_as(heads).clone()
        for position, at in enumerate(ablated_run.tokens.T):
            free, off = heads[prompts, at], ablated_run.off_values[layer][:, position]
            given[prompts, at] = torch.where(mask[layer, position][:, None], free, off)
        return given

    return switch_off


def circuits_measured(
    ablated_run: AblatedRun,
    circuits: Sequence[Collection[Site]],
    measure: Callable[[Tensor], Tensor],
) -> Iterator[Tensor]:
    """What `measure` makes of logits [k, n, vocab] of each circuit alone: some rows at a time.

    Those that follow each other in the order of `alike_first` run fastest, from `with_circuits` of
    all that are asked.
    """
    numbers = ablated_run.tokens.numel() * max(widths(ablated_run.model))
    fitting = max(1, min(CIRCUITS_AT_ONCE, _NUMBERS_AT_ONCE // numbers))
    at_once = 1 << fitting.bit_length() - 1
    for start in range(0, len(circuits), at_once):
        yield measure(circuits_logits(ablated_run, circuits[start : start + at_once])).cpu()


def alike_first(circuits: Sequence[Collection[Site]]) -> list[int]:
    """Numbers of the circuits, those that are all of them together in more of the first layers
    earlier."""
    together = _in_any(circuits)

    def first_missing(number: int) -> float:
        return min((site.head.layer for site in together - {*circuits[number]}), default=inf)

    return sorted(range(len(circuits)), key=first_missing, reverse=True)


def _in_any(circuits: Sequence[Collection[Site]]) -> frozenset[Site]:
    return frozenset[Site]().union(*circuits)


def circuit_logits_plainly(
    model: nn.Module, prompts: PromptSet, means: Tensor, on: Collection[Site]
) -> Tensor:
    """`circuit_logits` by its definition, one hooked run of the whole prompts: [n, vocab]."""
    off_values = position_means(means, prompts)
    return circuit_logits(_to_run_whole(model, prompts, tuple(means), off_values), on)
