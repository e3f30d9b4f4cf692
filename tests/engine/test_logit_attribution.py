"""Direct contributions against explicit matrices on a hooked run, in float64, in every family."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backend.core.errors import UserError
from backend.core.kept import Folder
from backend.engine import logit_attribution
from backend.engine.frozen_norms import frozen_norm
from backend.engine.logit_attribution import Contributions, direct_contributions
from backend.tasks import ioi
from backend.tasks.entity_tracking import sample_prompts
from tests import oracles, planted, planted_ioi, tiny
from tests.circuits import TOKENIZER

PROMPTS = sample_prompts(TOKENIZER, 4, n_boxes=3)
FAMILIES = [name for name in tiny.MAKERS if name not in tiny.STRANGERS]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: Any) -> Any:
    return tiny.in_float64(tiny.MAKERS[request.param]())


def linear(module: Any, x: Tensor) -> Callable[[Tensor], Tensor]:
    """A norm, written out, without its bias and with the scale that it has on x [d]."""
    if isinstance(module, nn.LayerNorm):
        size = (x.var(unbiased=False) + module.eps).sqrt()
        return lambda v: module.weight * (v - v.mean()) / size
    is_gemma = type(module).__name__.startswith("Gemma")
    epsilon = module.eps if is_gemma else module.variance_epsilon
    size = (x.square().mean() + epsilon).sqrt()
    return lambda v: (module.weight + is_gemma) * v / size


def bias_of(module: Any, like: Tensor) -> Tensor:
    bias = getattr(module, "bias", None)
    return torch.zeros_like(like) if bias is None else bias


def out_matrix(module: Any) -> tuple[Tensor, Tensor | None]:
    """[d_model, n_heads * d_head] and the bias, with an adapter's matrices multiplied out."""
    if hasattr(module, "base_layer"):
        adapter = module.lora_B["default"].weight @ module.lora_A["default"].weight
        return module.base_layer.weight + 2.0 * adapter, module.base_layer.bias  # alpha 8, rank 4
    weight = module.weight.T if type(module).__name__ == "Conv1D" else module.weight
    return weight, module.bias


@torch.no_grad()
def expected(model: Any) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The parts, the logit difference before a cap, and what the model says of it, if uncapped."""
    base = oracles.base_of(model)
    inner = base.get_decoder()
    n_layers, n_heads, _, d_head = oracles.sizes(model)
    blocks = inner.h if hasattr(inner, "h") else inner.layers
    final = next(
        getattr(inner, n) for n in ("norm", "ln_f", "final_layer_norm") if hasattr(inner, n)
    )
    seen: dict[Any, Tensor] = {}

    def before(name: Any) -> Any:
        return lambda _, given: seen.update({name: given[0][:, -1]})

    def after(name: Any) -> Any:
        return lambda _, __, out: seen.update({name: out[:, -1]})

    with ExitStack() as hooks:
        for i, block in enumerate(blocks):
            out = oracles.parts(model, i)["o"]
            hooks.enter_context(out.register_forward_pre_hook(before((i, "z"))))
            hooks.enter_context(out.register_forward_hook(after((i, "attended"))))
            writes = getattr(block, "post_feedforward_layernorm", block.mlp)
            hooks.enter_context(writes.register_forward_hook(after((i, "mlp"))))
        hooks.enter_context(
            blocks[0].register_forward_pre_hook(
                lambda _, given, named: seen.update(
                    {"embedding": (given[0] if given else named["hidden_states"])[:, -1]}
                ),
                with_kwargs=True,
            )
        )
        hooks.enter_context(final.register_forward_pre_hook(before("final")))
        logits = base(input_ids=torch.tensor(PROMPTS.input_ids), use_cache=False).logits[:, -1]
    unembedding = base.get_output_embeddings().weight
    n = len(PROMPTS)
    parts = {
        "heads": np.zeros((n, n_layers, n_heads)),
        "biases": np.zeros((n, n_layers)),
        "mlps": np.zeros((n, n_layers)),
        "embedding": np.zeros(n),
        "bias": np.zeros(n),
    }
    total, said = np.zeros(n), oracles.logit_differences(logits, PROMPTS).numpy()
    for row in range(n):
        answer = int(PROMPTS.answer_ids[row])
        others = [int(token) for token in PROMPTS.choice_ids[row] if token != answer]
        toward = unembedding[answer] - unembedding[others].mean(0)
        read = linear(final, seen["final"][row])
        total[row] = toward @ final(seen["final"][row][None])[0]
        parts["embedding"][row] = toward @ read(seen["embedding"][row])
        parts["bias"][row] = toward @ bias_of(final, toward)
        for i, block in enumerate(blocks):
            weight, bias = out_matrix(oracles.parts(model, i)["o"])
            bias = torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias
            into, shift = (lambda v: v), torch.zeros_like(bias)
            if oracles.base_of(model).config.model_type in ("gemma2", "gemma3_text", "olmo2"):
                norm = block.post_attention_layernorm
                into = linear(norm, seen[i, "attended"][row])
                shift = bias_of(norm, bias)
            parts["mlps"][row, i] = toward @ read(seen[i, "mlp"][row])
            parts["biases"][row, i] = toward @ read(into(bias) + shift)
            for head in range(n_heads):
                piece = slice(head * d_head, (head + 1) * d_head)
                wrote = weight[:, piece] @ seen[i, "z"][row, piece]
                parts["heads"][row, i, head] = toward @ read(into(wrote))
    return parts, total, said


def test_every_part_against_explicit_matrices(model: Any) -> None:
    found = direct_contributions(model, PROMPTS)
    parts, total, said = expected(model)
    ours = (found.heads, found.attention_biases, found.mlps, found.embedding, found.bias)
    for name, mine in zip(parts, ours, strict=True):
        np.testing.assert_allclose(mine, parts[name], rtol=0, atol=1e-10, err_msg=name)
    assert found.heads.abs().max() > 1e-3
    np.testing.assert_allclose(found.difference, total, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.sums, total, rtol=0, atol=1e-10)
    if not getattr(oracles.base_of(model).config, "final_logit_softcapping", None):
        np.testing.assert_allclose(total, said, rtol=0, atol=1e-10)


def test_the_answer_is_ahead_where_its_logit_is() -> None:
    model = tiny.in_float64(tiny.llama())
    found, (logits, _) = direct_contributions(model, PROMPTS), oracles.run(model, PROMPTS)
    for row, answer in enumerate(PROMPTS.answer_ids):
        others = [token for token in PROMPTS.choice_ids[row] if token != answer]
        assert bool(found.forced[row]) == bool((logits[row, answer] > logits[row, others]).all())


def test_planted_fetchers_write_all_of_the_answer() -> None:
    model, tokenizer = planted.model(), planted.tokenizer()
    prompts = sample_prompts(tokenizer, 20, n_boxes=3)
    found = direct_contributions(model, prompts)
    of_fetchers = sum(found.heads[:, head.layer, head.index] for head in planted.CIRCUIT["A"])
    rest = (found.difference - of_fetchers).abs() / found.difference
    assert rest.max() < 0.05  # what the weak random heads write
    assert found.gap < 1e-3


def test_planted_name_movers_write_for_the_answer_and_the_negative_one_against_it() -> None:
    tokenizer = planted_ioi.tokenizer()
    prompts = ioi.sample_prompts(tokenizer, 20)
    found = direct_contributions(planted_ioi.model(), prompts)
    mean = found.heads.mean(0)
    movers = planted_ioi.CIRCUIT["NM"]
    for head in movers:
        assert mean[head] > 1
    assert mean[planted_ioi.NEGATIVE] < -1
    rest = mean.clone()
    for head in (*movers, planted_ioi.NEGATIVE):
        rest[head] = 0
    assert rest.abs().max() < 0.1


@pytest.mark.parametrize("name", tiny.STRANGERS)
def test_a_model_that_cannot_be_taken_apart_is_told_so(name: str) -> None:
    with pytest.raises(UserError, match=r"run whole.*choose another model"):
        direct_contributions(tiny.MAKERS[name](), PROMPTS)


def test_parts_that_do_not_add_up_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if something of the model were not seen."""
    read = logit_attribution._of_layer

    def blind(*given: Any) -> Any:
        heads, bias, mlp = read(*given)
        return iter([0 * heads, bias, mlp])

    monkeypatch.setattr(logit_attribution, "_of_layer", blind)
    with pytest.raises(UserError, match=r"do not add up.*choose another model"):
        direct_contributions(tiny.llama(), PROMPTS)


def test_batches_are_kept_and_taken_from_there(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", "3")
    model, told = tiny.llama(), []
    first = direct_contributions(model, PROMPTS, lambda *step: told.append(step), Folder(tmp_path))
    assert told == [(0, 4), (3, 4), (4, 4)]
    monkeypatch.setattr(logit_attribution, "full_run", None)
    again = direct_contributions(model, PROMPTS, kept_in=Folder(tmp_path))
    for one, other in zip(vars(first).values(), vars(again).values(), strict=True):
        assert (one == other).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_numbers_add_up_as_far_as_they_reach(dtype: torch.dtype) -> None:
    found: Contributions = direct_contributions(tiny.grouped_llama().to(dtype), PROMPTS)
    exact = direct_contributions(tiny.grouped_llama(), PROMPTS)
    assert found.gap < 0.1 * exact.heads.abs().sum((1, 2)).max()


@pytest.mark.parametrize("d_model", [2, 7, 24])
def test_a_frozen_norm_is_the_norm_where_it_was_frozen(d_model: int) -> None:
    torch.manual_seed(0)
    norm = nn.LayerNorm(d_model, dtype=torch.float64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    at, direction = torch.randn(2, 5, d_model, dtype=torch.float64)
    frozen = frozen_norm(norm, at)
    read = (frozen.pulled_back(direction) * at).sum(-1) + direction @ frozen.bias
    torch.testing.assert_close(read, (direction * norm(at)).sum(-1))
    assert frozen.is_centred
