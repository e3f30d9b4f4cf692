"""Does the engine's picture of a model hold? If not, every method runs the whole model instead.

The engine takes layers apart (`backend.anatomy`) to run again only what can change. For a family
that it does not know, or knows wrongly, that would be silently wrong. So a model is asked once, on
random tokens, whether the parts put together give what the model itself gives. A model that is
spread over several devices is not taken apart either: its own forward knows where everything is.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from backend.anatomy import (
    decoder,
    device_of,
    last_logits,
    layers,
    logits_of,
    shape_of,
    unwrapped,
)
from backend.errors import is_out_of_memory
from backend.hooks import edited_projections, recorded_head_outputs
from backend.replay import full_run, layer_inputs

_N_TOKENS = 48
_MISFITS = (AttributeError, TypeError, ValueError, RuntimeError, IndexError, KeyError)
_known: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def holds(model: nn.Module) -> bool:
    """Whether the engine's layers give what the model's own do; measured once for each model."""
    if model not in _known:
        if len({weights.device for weights in model.parameters()}) > 1:
            return False
        try:
            _known[model] = _holds(model)
        except _MISFITS as error:
            if is_out_of_memory(error):
                raise
            _known[model] = False
    return _known[model]


@torch.no_grad()
def _holds(model: nn.Module) -> bool:
    words = torch.Generator().manual_seed(0)
    n_words = unwrapped(model).config.vocab_size
    ids = torch.randint(n_words, (2, _N_TOKENS), generator=words).to(device_of(model))
    with recorded_head_outputs(model) as heads:
        own = decoder(model)(input_ids=ids, use_cache=False, output_hidden_states=True)
    run = full_run(model, ids)
    entering = own.hidden_states[: shape_of(model).n_layers]
    pairs = [
        *zip(run.residuals, entering, strict=False),
        (logits_of(model, run.residuals[-1][:, -1]), last_logits(model, ids)),
    ]
    for number, layer in enumerate(layers(model)):
        put_together = layer.leave(run.residuals[number], layer.add_heads(heads[number]))
        pairs.append((put_together, run.residuals[number + 1]))
    return all(_alike(ours, theirs) for ours, theirs in pairs) and _linear_in_values(model, ids)


def _linear_in_values(model: nn.Module, ids: Tensor) -> bool:
    """Whether twice the values give twice the head outputs, as path patching takes for granted."""
    run = full_run(model, ids)
    inputs = layer_inputs(model, run.residuals[0], run.context.tokens, run.context.tokens[:, :0])
    layer = layers(model)[0]
    with recorded_head_outputs(model) as heads:
        layer.attend(run.residuals[0], inputs[0], None)
        with edited_projections(model, "v_proj", lambda _, values: 2 * values):
            layer.attend(run.residuals[0], inputs[0], None)
    return _alike(2 * heads[0], heads[1])


def _alike(ours: Tensor, theirs: Tensor) -> bool:
    within = 1e-4 if ours.dtype in (torch.float32, torch.float64) else 5e-2
    return bool((ours - theirs).abs().max() <= within * theirs.abs().max())
