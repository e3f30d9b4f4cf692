"""Slow and obvious: one plain run of the whole prompts, with hooks, for everything asked.

They share nothing with the engine but the definition of a head output, which they write out anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from backend.core.heads import Head, Site
from backend.core.metrics import Ablation, Score
from backend.tasks.prompts import PromptSet

NAMES = ("q_proj", "k_proj", "v_proj")

Change = Callable[[Tensor], None]
"""Writes into a flat activation [n, seq, n_heads * d_head] in place."""


def base_of(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def parts(model: Any, layer: int) -> dict[str, Any]:
    """The output projection, and for q, k, v the module and the numbers of its output."""
    base = base_of(model)
    kind, d = base.config.model_type, base.config.hidden_size
    if kind == "gpt2":
        attention = base.transformer.h[layer].attn
        thirds = {name: [*range(i * d, (i + 1) * d)] for i, name in enumerate(NAMES)}
        return {"o": attention.c_proj, "qkv": attention.c_attn, "where": thirds}
    if kind == "gpt_neox":
        attention = base.gpt_neox.layers[layer].attention
        heads, size = base.config.num_attention_heads, sizes(model)[3]
        where = {
            name: [(3 * head + i) * size + j for head in range(heads) for j in range(size)]
            for i, name in enumerate(NAMES)
        }
        return {"o": attention.dense, "qkv": attention.query_key_value, "where": where}
    attention = base.model.layers[layer].self_attn
    if kind == "phi3":
        _, heads, kv_heads, size = sizes(model)
        ends = [0, heads * size, (heads + kv_heads) * size, (heads + 2 * kv_heads) * size]
        where = {name: [*range(ends[i], ends[i + 1])] for i, name in enumerate(NAMES)}
        return {"o": attention.o_proj, "qkv": attention.qkv_proj, "where": where}
    return {"o": attention.o_proj} | {name: getattr(attention, name) for name in NAMES}


def sizes(model: Any) -> tuple[int, int, int, int]:
    config = base_of(model).config
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", heads)
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, heads, kv_heads, size


def run_with_gradients(
    model: Any,
    prompts: PromptSet,
    change_heads: Mapping[int, Change] | None = None,
    change_projection: Mapping[tuple[int, str], Change] | None = None,
) -> tuple[Tensor, dict[tuple[int, str], Tensor]]:
    """Logits at the last token [n, vocab], and what went into o_proj and came out of q, k and v."""
    seen: dict[tuple[int, str], Tensor] = {}

    def before_o(layer: int) -> Any:
        def hook(_: Any, inputs: Any) -> Any:
            flat = inputs[0].clone()
            if change_heads and layer in change_heads:
                change_heads[layer](flat)
            seen[layer, "heads"] = flat.clone()
            return (flat,)

        return hook

    def after(layer: int, where: Mapping[str, Any]) -> Any:
        def hook(_: Any, __: Any, output: Tensor) -> Tensor:
            output = output.clone()
            for name, numbers in where.items():
                flat = output[..., numbers].clone()
                if change_projection and (layer, name) in change_projection:
                    change_projection[layer, name](flat)
                seen[layer, name] = flat
                output[..., numbers] = flat
            return output

        return hook

    with ExitStack() as hooks:
        for layer in range(sizes(model)[0]):
            modules = parts(model, layer)
            hooks.enter_context(modules["o"].register_forward_pre_hook(before_o(layer)))
            if "qkv" in modules:
                hook = after(layer, modules["where"])
                hooks.enter_context(modules["qkv"].register_forward_hook(hook))
                continue
            for name in NAMES:
                hook = after(layer, {name: slice(None)})
                hooks.enter_context(modules[name].register_forward_hook(hook))
        ids = torch.tensor(prompts.input_ids, device=next(base_of(model).parameters()).device)
        logits = base_of(model)(input_ids=ids, use_cache=False).logits[:, -1]
    return logits, seen


run = torch.no_grad()(run_with_gradients)


def head_outputs(model: Any, prompts: PromptSet) -> Tensor:
    """[n_layers, n, seq, n_heads, d_head]"""
    n_layers, n_heads, _, d_head = sizes(model)
    _, seen = run(model, prompts)
    flat = torch.stack([seen[layer, "heads"] for layer in range(n_layers)])
    return flat.view(*flat.shape[:3], n_heads, d_head)


def replaced(
    model: Any, prompts: PromptSet, new: Mapping[tuple[int, int, int, int], Tensor]
) -> Tensor:
    """Logits [n, vocab] when head outputs (layer, prompt, token, head) have these values."""
    n_layers, _, _, d_head = sizes(model)

    def change_of(layer: int) -> Change:
        def change(flat: Tensor) -> None:
            for (at_layer, prompt, token, head), value in new.items():
                if at_layer == layer:
                    flat[prompt, token, head * d_head : (head + 1) * d_head] = value

        return change

    return run(model, prompts, {layer: change_of(layer) for layer in range(n_layers)})[0]


def off_values(
    model: Any,
    prompts: PromptSet,
    reference: PromptSet,
    counterfactual: PromptSet,
    ablation: Ablation,
) -> Tensor:
    """What knocked-out heads give: [n_layers, n, seq, n_heads, d_head]."""
    means = head_outputs(model, reference).mean(1, keepdim=True).repeat(1, len(prompts), 1, 1, 1)
    if ablation is Ablation.mean:
        return means
    if ablation is Ablation.zero:
        return torch.zeros_like(means)
    others = head_outputs(model, counterfactual)
    found = others.clone()
    for position in prompts.task.position_names:
        for row in range(len(prompts)):
            at, other_at = (
                int(each.positions[position][row]) for each in (prompts, counterfactual)
            )
            found[:, row, at] = others[:, row, other_at]
    return found


def circuit_alone(
    model: Any, prompts: PromptSet, reference: PromptSet, sites: Collection[Site]
) -> Tensor:
    """Logits [n, vocab] when every head output is its mean, but at these sites."""
    means = off_values(model, prompts, reference, prompts, Ablation.mean)
    return circuit_among(model, prompts, means, sites)


def circuit_among(model: Any, prompts: PromptSet, off: Tensor, sites: Collection[Site]) -> Tensor:
    """Logits [n, vocab] when heads give `off` [n_layers, n, seq, ...], but at these sites."""
    d_head = sizes(model)[3]

    def change_of(layer: int) -> Change:
        def change(flat: Tensor) -> None:
            free = flat.clone()
            flat[:] = off[layer].flatten(-2)
            for site in (site for site in sites if site.head.layer == layer):
                at = _numbers(prompts, site, d_head)
                flat[at] = free[at]

        return change

    return run(model, prompts, {layer: change_of(layer) for layer in range(sizes(model)[0])})[0]


def model_without(
    model: Any, prompts: PromptSet, reference: PromptSet, sites: Collection[Site]
) -> Tensor:
    """Logits [n, vocab] when head outputs at these sites are their means."""
    means = off_values(model, prompts, reference, prompts, Ablation.mean)
    return model_giving(model, prompts, means, sites)


def model_giving(model: Any, prompts: PromptSet, off: Tensor, sites: Collection[Site]) -> Tensor:
    """Logits [n, vocab] when heads at these sites give `off` [n_layers, n, seq, ...]."""
    d_head = sizes(model)[3]

    def change_of(layer: int) -> Change:
        def change(flat: Tensor) -> None:
            for site in (site for site in sites if site.head.layer == layer):
                at = _numbers(prompts, site, d_head)
                flat[at] = off[layer].flatten(-2)[at]

        return change

    return run(model, prompts, {layer: change_of(layer) for layer in range(sizes(model)[0])})[0]


def _numbers(prompts: PromptSet, site: Site, d_head: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the site's numbers are in a flat activation."""
    first = site.head.index * d_head
    tokens = torch.tensor(prompts.positions[site.position])
    rows = torch.arange(len(prompts))
    return rows[:, None], tokens[:, None], torch.arange(first, first + d_head)[None]


def answer_probabilities(logits: Tensor, prompts: PromptSet) -> Tensor:
    answers = torch.tensor(prompts.answer_ids, device=logits.device)
    return logits.softmax(-1)[torch.arange(len(answers)), answers]


def logit_differences(logits: Tensor, prompts: PromptSet) -> Tensor:
    """The right answer's logit less the mean of the others it competes with: [n]."""
    found = []
    for row, answer, choices in zip(logits, prompts.answer_ids, prompts.choice_ids, strict=True):
        others = [float(row[token]) for token in choices if token != answer]
        found.append(float(row[answer]) - sum(others) / len(others))
    return torch.tensor(found, dtype=torch.float64)


def path_patching_score(
    model: Any,
    prompts: PromptSet,
    counterfactual: PromptSet,
    group: str,
    receivers: Collection[Head],
    sender: Head,
    clean: Any = None,
    other: Any = None,
    score: Score = Score.probability,
    few: Collection[Collection[int]] | None = None,
) -> Tensor:
    """(p_patched - p_clean) / p_clean of the right answer [n], or the change of logit difference.

    `clean` and `other` are the runs on both prompt sets; `few` as in `path_patched_logits`.
    """
    of = prompts.task.group(group)
    projection = {"q": "q_proj", "k": "k_proj", "v": "v_proj"}.get(of.component)
    clean = clean or run(model, prompts)
    other = other or run(model, counterfactual)
    logits = path_patched_logits(
        model,
        prompts,
        counterfactual,
        of.position,
        projection,
        receivers,
        sender,
        clean,
        other,
        few,
    )
    if score is Score.logit_difference:
        return logit_differences(logits, prompts) - logit_differences(clean[0], prompts)
    p_clean = answer_probabilities(clean[0], prompts)
    return (answer_probabilities(logits, prompts) - p_clean) / p_clean


def path_patched_logits(
    model: Any,
    prompts: PromptSet,
    counterfactual: PromptSet,
    position: str,
    projection: str | None,
    receivers: Collection[Head],
    sender: Head,
    clean: Any,
    other: Any,
    few: Collection[Collection[int]] | None = None,
) -> Tensor:
    """Logits at the last token [n, vocab], by two plain runs of the model.

    First run: the sender at the position has the counterfactual's value, every other head output
    its clean one. Second run: the receivers' queries, keys or values at that token come from the
    first; everything else is computed. Without a projection the first run is all. With `few`, keys
    and values of all tokens but these of each prompt are clean in the second run, in every layer.
    """
    n_layers, n_heads, n_kv_heads, d_head = sizes(model)
    (_, clean_seen), (_, other_seen) = clean, other
    at = torch.tensor(prompts.positions[position])
    other_at = torch.tensor(counterfactual.positions[position])
    rows = torch.arange(len(prompts))
    piece = slice(sender.index * d_head, (sender.index + 1) * d_head)

    def freeze(layer: int) -> Change:
        def change(flat: Tensor) -> None:
            flat[:] = clean_seen[layer, "heads"]
            if layer == sender.layer:
                flat[rows, at, piece] = other_seen[layer, "heads"][rows, other_at, piece]

        return change

    logits, sent = run(model, prompts, {layer: freeze(layer) for layer in range(n_layers)})
    if projection is None:
        return logits
    per_head = 1 if projection == "q_proj" else n_heads // n_kv_heads

    def receive(layer: int) -> Change:
        def change(flat: Tensor) -> None:
            for receiver in receivers:
                if receiver.layer == layer:
                    first = receiver.index // per_head * d_head
                    part = slice(first, first + d_head)
                    flat[rows, at, part] = sent[layer, projection][rows, at, part]

        return change

    changes = {(layer, projection): receive(layer) for layer in range(n_layers)}
    return run(model, prompts, None, staying(changes, clean_seen, few, n_layers))[0]


def staying(
    changes: Mapping[tuple[int, str], Change],
    clean: Mapping[tuple[int, str], Tensor],
    few: Collection[Collection[int]] | None,
    n_layers: int,
) -> Mapping[tuple[int, str], Change]:
    """The same changes, with keys and values of all tokens but these few of each prompt clean."""
    if few is None:
        return changes

    def stay(layer: int, name: str) -> Change:
        def change(flat: Tensor) -> None:
            if (layer, name) in changes:
                changes[layer, name](flat)
            for row, tokens in enumerate(few):
                for token in {*range(flat.shape[1])} - {*tokens}:
                    flat[row, token] = clean[layer, name][row, token]

        return change

    names = {"k_proj", "v_proj"} | {name for _, name in changes}
    return {(layer, name): stay(layer, name) for layer in range(n_layers) for name in names}


def attributions(
    model: Any,
    prompts: PromptSet,
    counterfactual: PromptSet,
    group: str,
    receivers: Collection[Head],
    score: Score = Score.probability,
    points: Collection[float] = (0.0,),
    few: Collection[Collection[int]] | None = None,
) -> Tensor:
    """[n, n_layers, n_heads]: how fast the score changes as each head goes to its counterfactual.

    Each head has a share of its own, and gives clean + share x (counterfactual - clean) in the
    first run; derivatives in the shares, where all are at one of the points, averaged over these.
    `few` as in `path_patched_logits`.
    """
    n_layers, n_heads, n_kv_heads, d_head = sizes(model)
    of = prompts.task.group(group)
    projection = {"q": "q_proj", "k": "k_proj", "v": "v_proj"}.get(of.component)
    (clean_logits, clean), (_, other) = run(model, prompts), run(model, counterfactual)
    at = torch.tensor(prompts.positions[of.position])
    other_at = torch.tensor(counterfactual.positions[of.position])
    rows = torch.arange(len(prompts))
    per_head = 1 if projection == "q_proj" else n_heads // n_kv_heads
    found = torch.zeros(len(prompts), n_layers, n_heads, dtype=clean_logits.dtype)
    for point in points:
        shares = torch.full_like(found, point, requires_grad=True)

        def send(layer: int, shares: Tensor = shares) -> Change:
            def change(flat: Tensor) -> None:
                flat[:] = clean[layer, "heads"]
                before = clean[layer, "heads"][rows, at]
                after = other[layer, "heads"][rows, other_at]
                moved = shares[:, layer].repeat_interleave(d_head, 1) * (after - before)
                flat[rows, at] = before + moved

            return change

        logits, sent = run_with_gradients(model, prompts, {i: send(i) for i in range(n_layers)})

        def receive(layer: int, sent: Any = sent) -> Change:
            def change(flat: Tensor) -> None:
                for receiver in receivers:
                    if receiver.layer == layer:
                        first = receiver.index // per_head * d_head
                        part = slice(first, first + d_head)
                        flat[rows, at, part] = sent[layer, projection][rows, at, part]

            return change

        if projection:
            changes = {(layer, projection): receive(layer) for layer in range(n_layers)}
            changed = staying(changes, clean, few, n_layers)
            logits, _ = run_with_gradients(model, prompts, None, changed)
        answers = torch.tensor(prompts.answer_ids)
        if score is Score.probability:
            p_clean = answer_probabilities(clean_logits, prompts)
            scores = answer_probabilities(logits, prompts) / p_clean - 1
        else:
            choices = torch.tensor(prompts.choice_ids)
            others = logits.gather(1, choices).sum(1) - logits[rows, answers]
            scores = logits[rows, answers] - others / (choices.shape[1] - 1)
        found += torch.autograd.grad(scores.sum(), shares)[0] / len(points)
    return found
