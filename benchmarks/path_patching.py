"""How much the engine saves, and that it changes nothing: python -m benchmarks.path_patching

Path patching on a random Llama of 12 layers, 12 heads and d_model 768, against the obvious way: two
hooked runs of the whole prompts per head (one in stage A), all prompts at once. The obvious way
would take half an hour: it is timed on a few random senders of each stage and multiplied, by all
144 heads and by those below the highest receiver, as only they can score. Scores are compared on
the same senders.

Circuits and clicks on the size of the bundled models, against a plain run of the same prompts.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch

from backend.anatomy import shape_of
from backend.circuit import Group, Head, Position, Site
from backend.clicks import patched_logits, patched_logits_plainly, prepare_clean
from backend.faithfulness import (
    circuit_logits,
    circuit_logits_plainly,
    circuits_logits,
    prepare_backdrop,
)
from backend.path_patching import scores_of
from backend.run_pairs import RunPairs
from backend.tasks import counterfactual_prompts, reference_prompts, sample_prompts
from backend.vital import all_sites, input_ids, mean_head_outputs, vital_head_outputs
from tests import oracles, tiny

LARGE: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "head_dim": 64,
    "initializer_range": 0.04,
}
BUNDLED: dict[str, Any] = {
    "vocab_size": 234,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 16,
    "initializer_range": 0.15,
}
RECEIVERS = {
    Group.A: [],
    Group.B: [Head(layer, index) for layer in (8, 9, 10, 11) for index in (0, 3, 5, 8, 11)],
    Group.C: [Head(7, 1), Head(8, 2), Head(8, 7), Head(9, 4), Head(10, 9)],
    Group.D: [Head(layer, index) for layer in (5, 6, 7, 8) for index in (2, 10)],
}


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Processor seconds it took, of all threads together, and what it gave.

    Not the clock on the wall: on a shared machine that measures the neighbours.
    """
    start = time.process_time()
    result = work(*arguments)
    return time.process_time() - start, result


def median_ms(work: Callable[[], Any], repeats: int = 9) -> float:
    """Processor milliseconds, after one run to warm up."""
    work()
    return 1000 * statistics.median(timed(work)[0] for _ in range(repeats))


def compare_path_patching(n_prompts: int, n_sampled: int) -> None:
    """Print seconds, ratio and greatest score difference of each stage and overall."""
    tokenizer = tiny.word_tokenizer()
    model = tiny.llama(**LARGE)
    prompts = sample_prompts(tokenizer, n_prompts)
    counterfactual = counterfactual_prompts(tokenizer, prompts)
    print(
        f"Path patching: 12 layers x 12 heads, d_model 768, {n_prompts} prompts of "
        f"{prompts.input_ids.shape[1]} tokens, threads: {torch.get_num_threads()}.\n"
        f"The obvious way is extrapolated from {n_sampled} random senders a stage. "
        "Times are processor seconds.\n\n"
        "                     the obvious way / s         ratio to\n"
        "stage  ours / s   144 heads  reach receivers   144   reach   max difference  max score"
    )
    rng = random.Random(0)
    pairs = RunPairs(model, prompts, counterfactual)
    totals = [0.0, 0.0, 0.0]

    def row(name: str, times: Sequence[float], end: str) -> None:
        ours, every, reaching = times
        ratios = f"{every / ours:5.1f} {reaching / ours:7.1f}"
        print(f"{name:5} {ours:9.2f} {every:11.0f} {reaching:16.0f} {ratios}{end}", flush=True)

    for group, receivers in RECEIVERS.items():
        ours, scores = timed(scores_of, pairs, group, receivers)
        setting_out, clean = timed(oracles.run, model, prompts)
        counterfactual_run = oracles.run(model, counterfactual)
        n_layers = max((head.layer for head in receivers), default=12)
        seconds, difference, largest = 0.0, 0.0, 0.0
        for sender in rng.sample(list(product(range(n_layers), range(12))), n_sampled):
            taken, expected = timed(
                oracles.path_patching_score,
                *(model, prompts, counterfactual, group, receivers, Head(*sender)),
                *(clean, counterfactual_run),
            )
            seconds += taken / n_sampled
            gap = scores[(slice(None), *sender)] - expected
            difference = max(difference, float(gap.abs().max()))
            largest = max(largest, float(expected.abs().max()))
        times = [ours, *(2 * setting_out + seconds * 12 * layers for layers in (12, n_layers))]
        totals = [total + each for total, each in zip(totals, times, strict=True)]
        row(group.name, times, f" {difference:16.1e} {largest:10.3f}")
    row("all", totals, "\n")


def compare_circuits_and_clicks(n_prompts: int) -> None:
    """Print milliseconds of circuits and clicks, and their share of a plain run."""
    tokenizer = tiny.word_tokenizer()
    model = tiny.llama(**BUNDLED)
    prompts = sample_prompts(tokenizer, n_prompts)
    means = mean_head_outputs(model, reference_prompts(tokenizer, n_prompts, seed=1))
    values = vital_head_outputs(model, counterfactual_prompts(tokenizer, prompts))
    backdrop, clean = prepare_backdrop(model, prompts, means), prepare_clean(model, prompts)
    sites = sorted(all_sites(shape_of(model)), key=str)
    circuit = random.Random(0).sample(sites, 32)
    ids = input_ids(model, prompts)
    with torch.no_grad():
        plain = median_ms(lambda: model(input_ids=ids, use_cache=False, logits_to_keep=1))
    print(f"Size of the bundled models, {n_prompts} prompts. A plain run takes {plain:.0f} ms.\n")
    print("what                                       ms   of plain   max difference")

    def row(name: str, ms: float, difference: float) -> None:
        print(f"{name:38} {ms:6.1f} {ms / plain:10.2f} {difference:16.1e}", flush=True)

    expected = circuit_logits_plainly(model, prompts, means, circuit)
    gap = float((circuit_logits(backdrop, circuit) - expected).abs().max())
    row("a circuit", median_ms(lambda: circuit_logits(backdrop, circuit)), gap)
    eight = median_ms(lambda: circuits_logits(backdrop, [circuit] * 8)) / 8
    row("a circuit, eight at once", eight, gap)
    for position in (Position.last, Position.query_label, Position.prev_query_label):
        for layer in (0, 2, 4):
            patch = [Site(Head(layer, 1), position)]
            expected = patched_logits_plainly(model, prompts, patch, values)
            gap = float((patched_logits(clean, patch, values) - expected).abs().max())
            ms = median_ms(partial(patched_logits, clean, patch, values))
            row(f"a click at {position.name}, layer {layer}", ms, gap)


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=20, help="prompts for path patching")
    parser.add_argument("--senders", type=int, default=4, help="senders timed the obvious way")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    compare_path_patching(options.prompts, options.senders)
    compare_circuits_and_clicks(n_prompts=200)


if __name__ == "__main__":
    main()
