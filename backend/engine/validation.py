"""Does the engine's picture of a model hold? If not, every method runs the whole model instead.

The engine takes layers apart (`backend.engine.architectures`) to run again only what can change.
For a family that it does not know, or knows wrongly, that would be silently wrong. So a model is
asked once, on random tokens, whether what the engine makes of its parts is what the model itself
gives: a whole run, what is projected, and the two kinds of replay that methods are made of, each
beside hooked runs of the model's own. Numbers are compared token by token: in real models a few
tokens have activations a thousand times as large as all others.

A model that is spread over several devices is not taken apart either: its own forward knows where
everything is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from backend.core.errors import UserError, is_out_of_memory
from backend.engine.architectures import (
    Projection,
    config_of,
    decoder,
    device_of,
    last_logits,
    layers,
    logits_of,
    shape_of,
)
from backend.engine.finite import check_finite
from backend.engine.hooks import (
    Edit,
    at_tokens,
    edited_head_outputs,
    edited_projections,
    recorded_head_outputs,
)
from backend.engine.replay import FullRun, full_run, layer_inputs, replay

_N_TOKENS = 32
_N_TRIED = 8
"""Prompts on which a model that cannot be taken apart is tried, for what to say of it."""
_GAPS = ((3, 17, 31), (8, 9, 31))
"""Tokens of each of two prompts that are run again while those between them are not."""
_START = 20
"""The token at which projections are changed, and from which on all are run again."""
_known: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()

_Pair = tuple[Tensor, Tensor, Tensor]
"""What the engine makes, what the model gives [..., d], and how large each row got [...]."""


def can_take_apart(model: nn.Module) -> bool:
    """Whether the engine's layers give what the model's own do; measured once for each model."""
    if len({weights.device for weights in model.parameters()}) > 1:
        return False
    if model not in _known:
        try:
            _known[model] = _holds(model)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            _known[model] = False
    return _known[model]


@torch.no_grad()
def check_can_take_apart(model: nn.Module, ids: Tensor, purpose: str) -> None:
    """Raise UserError unless the model can be taken apart, which `purpose` needs.

    ids [n, seq]: prompts; if the model gives no finite numbers on the first of them, it says that.
    """
    if can_take_apart(model):
        return
    check_finite(last_logits(model, ids[:_N_TRIED]))
    raise UserError(
        f"{purpose} needs the parts of each layer, and this model can only be run whole: it is "
        "spread over several devices, or built in a way that the engine does not know. Load it on "
        "one device, or choose another model."
    )


@dataclass(frozen=True, eq=False)
class _Own:
    """A run of the model's own, on ids [n, seq], by layer.

    entering [n, seq, d_model]; heads [n, seq, n_heads, d_head], and so what is projected; logits
    [n, vocab], at the last token.
    """

    model: nn.Module
    ids: Tensor
    entering: tuple[Tensor, ...]
    heads: list[Tensor]
    projected: Mapping[Projection, list[Tensor]]
    logits: Tensor


@torch.no_grad()
def _holds(model: nn.Module) -> bool:
    own = _own_run(model)
    run = full_run(model, own.ids)

    def pairs() -> Iterator[_Pair]:
        yield from _whole_run(own, run)
        yield from _projections(own)
        yield from _with_gaps(own, run)
        yield from _from_a_token_on(own, run)

    return all(_alike(*pair) for pair in pairs())


def _own_run(model: nn.Module) -> _Own:
    chance = torch.Generator().manual_seed(0)
    ids = torch.randint(config_of(model).vocab_size, (len(_GAPS), _N_TOKENS), generator=chance)
    ids = ids.to(device_of(model))
    projected: dict[Projection, list[Tensor]] = {"q_proj": [], "k_proj": [], "v_proj": []}
    recording = {name: _keeping(found) for name, found in projected.items()}
    with recorded_head_outputs(model) as heads, _edited_projections(model, recording):
        own = decoder(model)(input_ids=ids, use_cache=False, output_hidden_states=True)
    entering = own.hidden_states[: shape_of(model).n_layers]
    return _Own(model, ids, entering, heads, projected, last_logits(model, ids))


def _keeping(found: list[Tensor]) -> Edit:
    return lambda _, heads: found.append(heads.clone())


@contextmanager
def _edited_projections(model: nn.Module, edits: Mapping[Projection, Edit]) -> Iterator[None]:
    with ExitStack() as edited:
        for name, edit in edits.items():
            edited.enter_context(edited_projections(model, name, edit))
        yield


def _alike(ours: Tensor, theirs: Tensor, size: Tensor) -> bool:
    within = 1e-4 if ours.dtype in (torch.float32, torch.float64) else 5e-2
    return bool(((ours - theirs).abs().amax(-1) <= within * size).all())


def _by_row(ours: Tensor, theirs: Tensor) -> _Pair:
    return ours, theirs, theirs.abs().amax(-1)


def _by_token(ours: Tensor, theirs: Tensor) -> _Pair:
    """A pair of numbers by head [..., n_heads, d_head]."""
    return _by_row(ours.flatten(-2), theirs.flatten(-2))


def _whole_run(own: _Own, run: FullRun) -> Iterator[_Pair]:
    """Residuals, layers put together of what enters and their head outputs, and logits."""
    # A sum keeps the rounding of the largest that it was on its way.
    sizes = [*accumulate((each.abs().amax(-1) for each in run.residuals), torch.maximum)]
    yield from zip(run.residuals, own.entering, sizes, strict=False)
    for number, layer in enumerate(layers(own.model)):
        left = layer.leave(own.entering[number], layer.add_heads(own.heads[number]))
        yield left, run.residuals[number + 1], sizes[number + 1]
    yield _by_row(logits_of(own.model, run.residuals[-1][:, -1]), own.logits)


def _projections(own: _Own) -> Iterator[_Pair]:
    """Queries, keys and values are what they are called, and of the heads that are said to be."""
    model, shape = own.model, shape_of(own.model)
    tokens = torch.arange(_N_TOKENS, device=own.ids.device)[None]
    inputs = layer_inputs(model, own.entering[0], tokens, tokens[:, :0])
    from_there, sharing = slice(_START, None), slice(shape.n_heads // shape.n_kv_heads)
    reached: dict[Projection, tuple[slice, slice]] = {
        "q_proj": (slice(_START, _START + 1), slice(1)),
        "k_proj": (from_there, sharing),
        "v_proj": (from_there, sharing),
    }

    def turned(_: int, heads: Tensor) -> Tensor:
        heads = heads.clone()
        heads[:, _START, 0] *= -1
        return heads

    def attended(number: int, name: Projection, edit: Edit) -> Tensor:
        with recorded_head_outputs(model) as seen, edited_projections(model, name, edit):
            stack[number].attend(own.entering[number], inputs[number], None)
        return seen[0]

    stack = layers(model)
    for number, layer in enumerate(stack):
        for name, reach in reached.items():
            projected = layer.project(name, own.entering[number])
            yield _by_token(projected, own.projected[name][number])
            expected, changed = own.heads[number].clone(), attended(number, name, turned)
            expected[:, *reach] = changed[:, *reach]
            yield _by_token(changed, expected)
        # Path patching takes for granted that head outputs are linear in values.
        doubled = attended(number, "v_proj", lambda _, values: 2 * values)
        yield _by_token(doubled, 2 * own.heads[number])


def _with_gaps(own: _Own, run: FullRun) -> Iterator[_Pair]:
    """Two circuits over a context of the other tokens, as where everything else is knocked out.

    At a few tokens half of the heads give what they give in the other prompt.
    """
    model, shape, ids = own.model, shape_of(own.model), own.ids
    rows = torch.tensor(_GAPS, device=ids.device)
    prompts = torch.arange(len(ids), device=ids.device)[:, None]
    size = (shape.n_layers, len(ids), 2, rows.shape[1], shape.n_heads, 1)
    on = (torch.rand(size, generator=torch.Generator().manual_seed(0)) < 0.5).to(ids.device)
    off = [at_tokens(heads, rows).flip(0) for heads in own.heads]

    def plainly(variant: int) -> tuple[Tensor, list[Tensor]]:
        def switch(layer: int, heads: Tensor) -> Tensor:
            computed.append(at_tokens(heads, rows))
            given = own.heads[layer].clone()
            given[prompts, rows] = torch.where(on[layer, :, variant], computed[-1], off[layer])
            return given

        computed: list[Tensor] = []
        with edited_head_outputs(model, switch):
            return last_logits(model, ids), computed

    def switch(layer: int, heads: Tensor) -> Tensor:
        computed.append(heads.unflatten(1, (2, -1)))
        return torch.where(on[layer], computed[-1], off[layer][:, None]).flatten(1, 2)

    others = torch.ones_like(ids, dtype=torch.bool).scatter(1, rows, False)
    context = run.context.at(others.nonzero()[:, 1].view(len(ids), -1))
    hidden = at_tokens(run.residuals[0], rows).repeat(1, 2, 1)
    computed: list[Tensor] = []
    with edited_head_outputs(model, switch):
        final = replay(model, hidden, rows, context, variants=2)
    yield from _replayed(model, final, computed, [plainly(0), plainly(1)])


def _from_a_token_on(own: _Own, run: FullRun) -> Iterator[_Pair]:
    """From the second layer on, as after a click and at receivers.

    A token has other queries in one variant, other keys in another, other values in the third.
    """
    model, first = own.model, min(1, shape_of(own.model).n_layers - 1)
    factors: dict[Projection, tuple[int, ...]] = {
        "q_proj": (-2, 1, 1),
        "k_proj": (1, -2, 1),
        "v_proj": (1, 1, -2),
    }
    n_variants = len(factors)

    def plainly(variant: int) -> tuple[Tensor, list[Tensor]]:
        def scaled(by: int) -> Edit:
            def edit(layer: int, heads: Tensor) -> Tensor | None:
                if layer < first:
                    return None
                heads = heads.clone()
                heads[:, _START] *= by
                return heads

            return edit

        edits = {name: scaled(by[variant]) for name, by in factors.items()}
        with recorded_head_outputs(model) as seen, _edited_projections(model, edits):
            logits = last_logits(model, own.ids)
        return logits, [heads[:, _START:] for heads in seen[first:]]

    def scaled(by: tuple[int, ...]) -> Edit:
        def edit(_: int, heads: Tensor) -> Tensor:
            heads = heads.clone()
            first_rows = heads.unflatten(1, (n_variants, -1))[:, :, 0]
            first_rows *= torch.tensor(by).to(heads)[:, None, None]
            return heads

        return edit

    tokens = torch.arange(_START, _N_TOKENS, device=own.ids.device)[None]
    hidden = run.residuals[first][:, _START:].repeat(1, n_variants, 1)
    edits = {name: scaled(by) for name, by in factors.items()}
    with recorded_head_outputs(model) as seen, _edited_projections(model, edits):
        final = replay(model, hidden, tokens, run.context.before(_START), first, n_variants)
    computed = [heads.unflatten(1, (n_variants, -1)) for heads in seen]
    yield from _replayed(model, final, computed, [plainly(i) for i in range(n_variants)])


def _replayed(
    model: nn.Module,
    final: Tensor,
    computed: list[Tensor],
    plain: list[tuple[Tensor, list[Tensor]]],
) -> Iterator[_Pair]:
    """The variants' head outputs, by layer, and logits; `plain` has them of runs of the model."""
    for layer, ours in enumerate(computed):
        yield _by_token(ours, torch.stack([heads[layer] for _, heads in plain], 1))
    yield _by_row(logits_of(model, final), torch.stack([logits for logits, _ in plain], 1))
