"""Direct logit attribution: what each part of a model adds to the logit difference at the last
token.

What leaves the last layer is a sum: the embedding, and what every head, every MLP and the biases of
attention add. Logits are a linear map of it, but for the final norm's scale. With that scale held
at what it is on each prompt, the logit difference is a sum over the same parts (Elhage et al.,
2021; Wang et al., 2023, section 3.1); so is that of a family that norms what attention adds (Gemma
2 and 3, OLMo 2), with the scales of those norms held too. Of logits that are capped it is the
difference before the cap.

Only direct: what a part does through others counts as theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from backend.core.errors import UserError
from backend.core.kept import Kept
from backend.core.progress import Progress, silent
from backend.engine import checkpoints
from backend.engine.answers import is_ahead, logit_difference
from backend.engine.architectures import Layer, final_norm, layers, shape_of, unembed
from backend.engine.finite import check_finite
from backend.engine.frozen_norms import frozen_norm
from backend.engine.hooks import recorded_head_outputs
from backend.engine.memory import memory_errors_explained, prompt_batches
from backend.engine.positions import input_ids
from backend.engine.replay import full_run
from backend.engine.validation import check_can_take_apart
from backend.tasks.prompts import PromptSet

_LEAST_GAP = 1e-3
"""Share of the sizes of all parts by which their sum may miss what it should be, in float32."""


@dataclass(frozen=True, eq=False)
class Contributions:
    """What each part adds to the logit difference of n prompts, in logits, in float64.

    heads [n, n_layers, n_heads]; attention_biases, mlps [n, n_layers]; embedding [n], with that of
    positions if there is one; bias [n], of the final norm and the unembedding; difference [n], what
    they sum to, read off the model's own logits before a cap; forced [n]: the right answer is ahead
    of its competitors.
    """

    heads: Tensor
    attention_biases: Tensor
    mlps: Tensor
    embedding: Tensor
    bias: Tensor
    difference: Tensor
    forced: Tensor

    @property
    def sums(self) -> Tensor:
        """Of all parts: [n]."""
        layered = self.heads.sum(-1) + self.attention_biases + self.mlps
        return layered.sum(-1) + self.embedding + self.bias

    @property
    def gap(self) -> float:
        """How far their sum is from the logit difference, on the prompt where it is furthest."""
        return float((self.sums - self.difference).abs().max())


@torch.no_grad()
def direct_contributions(
    model: nn.Module, prompts: PromptSet, progress: Progress = silent, kept_in: Kept | None = None
) -> Contributions:
    """What each part of the model adds to each prompt's logit difference; `progress` counts them.

    Finished batches are kept in a folder, if there is one, and taken from there. Raises UserError
    for a model that cannot be taken apart, and for one whose parts do not sum to the difference.
    """
    ids = input_ids(model, prompts)
    check_can_take_apart(model, ids, "Direct attribution")
    shape = shape_of(model)
    sizes = (shape.n_layers * shape.n_heads, shape.n_layers, shape.n_layers, 1, 1, 1, 1)
    batches = prompt_batches(model, *ids.shape)

    def of_batch(rows: slice) -> Tensor:
        progress(rows.start, len(prompts))
        return _of_batch(model, ids[rows], _choices(prompts, rows, ids))

    blocks = [
        checkpoints.Block(
            checkpoints.name_of(rows),
            (rows.stop - rows.start, sum(sizes)),
            torch.float64,
            partial(of_batch, rows),
        )
        for rows in batches
    ]
    with memory_errors_explained(model, batches[0].stop):
        found = checkpoints.tensors(kept_in, blocks)
    progress(len(prompts), len(prompts))
    heads, biases, mlps, embedding, bias, difference, forced = torch.cat(found).split(sizes, 1)
    parts = Contributions(
        heads.unflatten(1, (shape.n_layers, shape.n_heads)),
        biases,
        mlps,
        embedding[:, 0],
        bias[:, 0],
        difference[:, 0],
        forced[:, 0].bool(),
    )
    _check_sums(parts, model)
    return parts


def _choices(prompts: PromptSet, rows: slice, like: Tensor) -> tuple[Tensor, Tensor]:
    return (
        torch.tensor(prompts.answer_ids[rows], device=like.device),
        torch.tensor(prompts.choice_ids[rows], device=like.device),
    )


def _of_batch(model: nn.Module, ids: Tensor, choices: tuple[Tensor, Tensor]) -> Tensor:
    """The fields of `Contributions` side by side: [n, all of them]."""
    last = torch.full_like(ids[:, :1], ids.shape[1] - 1)
    with recorded_head_outputs(model, last) as heads:
        residuals = [residual[:, -1:] for residual in full_run(model, ids).residuals]
    direction, bias, difference, forced = _read_out(model, residuals[-1][:, 0], *choices)
    by_layer = [
        _of_layer(layer, residual, of_layer, direction)
        for layer, residual, of_layer in zip(layers(model), residuals[:-1], heads, strict=True)
    ]
    parts = [torch.stack(part, 1).flatten(1) for part in zip(*by_layer, strict=True)]
    embedding = _dot(direction, residuals[0][:, 0])
    rest = torch.stack([embedding, bias, difference, forced.double()], 1)
    return check_finite(torch.cat([*parts, rest], 1).cpu())


def _read_out(
    model: nn.Module, final: Tensor, answer_ids: Tensor, choice_ids: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """How the logit difference is read off what leaves the last layer, `final` [n, d_model].

    The direction [n, d_model] with the final norm's scale held, and what the biases of norm and
    unembedding add, the difference itself, and whether the answer is ahead, all [n].
    """
    norm = final_norm(model)
    normed, frozen = norm(final), frozen_norm(norm, final)
    with torch.enable_grad():
        given = normed.detach().requires_grad_()
        logits = unembed(model, given)
        difference = logit_difference(logits[:, None], answer_ids, choice_ids)[:, 0]
        (after,) = torch.autograd.grad(difference.sum(), given)
    after, difference = after.double(), difference.detach()
    of_unembedding = difference - _dot(after, normed)
    bias = of_unembedding + after @ frozen.bias
    answer, choices = (
        logits.detach().gather(-1, each) for each in (answer_ids[:, None], choice_ids)
    )
    forced = ~is_ahead(choices, choice_ids, answer, answer_ids[:, None]).any(-1)
    return frozen.pulled_back(after), bias, difference, forced


def _of_layer(layer: Layer, residual: Tensor, heads: Tensor, direction: Tensor) -> Iterator[Tensor]:
    """What heads [n, n_heads], attention's bias and the MLP [n] add along `direction` [n, d_model].

    residual [n, 1, d_model] enters the layer; heads [n, 1, n_heads, d_head] are its outputs.
    """
    attended = layer.add_heads(heads)
    added, before, bias = attended, direction, torch.zeros_like(direction[:, 0])
    if layer.norm_after is not None:
        frozen = frozen_norm(layer.norm_after, attended[:, 0])
        added, before, bias = (
            layer.norm_after(attended),
            frozen.pulled_back(direction),
            (direction @ frozen.bias),
        )
    # The output projection is linear, adapters included: read backwards, it is called only once.
    read = _pulled_back(layer.add_heads, heads, before[:, None].to(heads.dtype))
    yield _dot(read, heads)[:, 0]
    yield bias + _dot(before, layer.add_heads(torch.zeros_like(heads))[:, 0])
    yield _dot(direction, (layer.leave(residual, attended) - residual - added)[:, 0])


def _pulled_back(linear: Any, at: Tensor, direction: Tensor) -> Tensor:
    """The direction before a linear map that reads what `direction` reads after it."""
    with torch.enable_grad():
        given = at.detach().requires_grad_()
        (before,) = torch.autograd.grad(linear(given), given, direction)
    found: Tensor = before
    return found


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one.double() * other.double()).sum(-1)


def _check_sums(parts: Contributions, model: nn.Module) -> None:
    sizes = parts.heads.abs().sum(-1) + parts.attention_biases.abs() + parts.mlps.abs()
    total = sizes.sum(-1) + parts.embedding.abs() + parts.bias.abs()
    precision = torch.finfo(next(model.parameters()).dtype).eps
    missed = (parts.sums - parts.difference).abs() / total
    if not (missed <= max(_LEAST_GAP, 8 * precision)).all():
        worst = int(missed.argmax())
        raise UserError(
            "The parts of this model do not add up to its logits: on one prompt they sum to "
            f"{float(parts.sums[worst]):.3f}, and the logit difference is "
            f"{float(parts.difference[worst]):.3f}. Something in it is not known here. Read it "
            "with the logit lens, or choose another model."
        )
