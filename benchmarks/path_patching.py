"""How much path patching saves, and that it changes nothing: python -m benchmarks.path_patching

On a random Llama of 12 layers, 12 heads and d_model 768, against the obvious way: two hooked runs
of the whole prompts per head (one in stage A), all prompts at once. The obvious way would take half
an hour: it is timed on a few random senders of each stage and multiplied, by all heads and by those
below the highest receiver, as only they can score. Scores are compared on the same senders.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.core.heads import Head
from backend.engine.architectures import shape_of
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import scores_of
from backend.tasks.entity_tracking import counterfactual_prompts, sample_prompts
from backend.tasks.prompts import PromptSet, select
from benchmarks.cases import TWELVE_LAYERS
from benchmarks.measuring import timed
from tests import oracles, tiny

RECEIVERS = {
    "A": [],
    "B": [Head(layer, index) for layer in (8, 9, 10, 11) for index in (0, 3, 5, 8, 11)],
    "C": [Head(7, 1), Head(8, 2), Head(8, 7), Head(9, 4), Head(10, 9)],
    "D": [Head(layer, index) for layer in (5, 6, 7, 8) for index in (2, 10)],
}


@dataclass(frozen=True, eq=False)
class MeasuredStage:
    """A stage's scores [n, n_layers, n_heads], and the seconds that they took."""

    scores: Tensor
    seconds: float


def measure_stages(
    pairs: RunPairs, device: torch.device, receivers: Mapping[str, Collection[Head]]
) -> Iterable[tuple[str, MeasuredStage]]:
    """Each stage, timed; the first one also runs the prompts, and what they are patched with."""
    for group, heads in receivers.items():
        seconds, scores = timed(device, scores_of, pairs, group, heads)
        yield group, MeasuredStage(scores, seconds)


def compare_path_patching(
    model: Any,
    prompts: PromptSet,
    counterfactual: PromptSet,
    receivers: Mapping[str, Collection[Head]],
    n_senders: int,
    n_obvious: int,
) -> dict[str, MeasuredStage]:
    """Print seconds, ratio and greatest score difference of each stage and overall.

    The obvious way is timed on `n_senders` heads and the first `n_obvious` prompts.
    """
    device = next(model.parameters()).device
    shape = shape_of(model)
    few = np.arange(len(prompts)) < n_obvious
    some, others = select(prompts, few), select(counterfactual, few)
    print(
        f"Path patching: {shape.n_layers} layers x {shape.n_heads} heads, "
        f"{len(prompts)} prompts of {prompts.input_ids.shape[1]} tokens.\n"
        f"The obvious way is extrapolated from {n_senders} random senders a stage, on {len(some)} "
        "prompts.\n\n"
        "                     the obvious way / s         ratio to\n"
        f"stage  ours / s   {shape.n_layers * shape.n_heads:4} heads  reach receivers"
        "   all    reach   max difference  max score"
    )
    rng = random.Random(0)
    totals = [0.0, 0.0, 0.0]

    def row(name: str, times: Sequence[float], end: str) -> None:
        ours, every, reaching = times
        ratios = f"{every / ours:6.1f} {reaching / ours:8.1f}"
        print(f"{name:5} {ours:9.2f} {every:12.0f} {reaching:16.0f} {ratios}{end}", flush=True)

    measured = {}
    for group, stage in measure_stages(RunPairs(model, prompts, counterfactual), device, receivers):
        measured[group] = stage
        setting_out, clean = timed(device, oracles.run, model, some)
        counterfactual_run = oracles.run(model, others)
        n_layers = max((head.layer for head in receivers[group]), default=shape.n_layers)
        seconds, difference, largest = 0.0, 0.0, 0.0
        for sender in rng.sample([*product(range(n_layers), range(shape.n_heads))], n_senders):
            taken, expected = timed(
                device,
                oracles.path_patching_score,
                *(model, some, others, group, receivers[group], Head(*sender)),
                *(clean, counterfactual_run),
            )
            seconds += taken / n_senders
            expected = expected.cpu()
            gap = stage.scores[(slice(len(some)), *sender)] - expected
            difference = max(difference, float(gap.abs().max()))
            largest = max(largest, float(expected.abs().max()))
        scale = len(prompts) / len(some)
        obvious = [
            scale * (2 * setting_out + seconds * shape.n_heads * layers)
            for layers in (shape.n_layers, n_layers)
        ]
        totals = [a + b for a, b in zip(totals, [stage.seconds, *obvious], strict=True)]
        row(group, [stage.seconds, *obvious], f" {difference:16.1e} {largest:10.3f}")
    row("all", totals, "\n")
    return measured


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=20, help="prompts for path patching")
    parser.add_argument("--senders", type=int, default=4, help="senders timed the obvious way")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer, model = tiny.word_tokenizer(), tiny.llama(**TWELVE_LAYERS)
    prompts = sample_prompts(tokenizer, options.prompts)
    counterfactual = counterfactual_prompts(tokenizer, prompts)
    print(f"d_model 768, processor seconds, threads: {torch.get_num_threads()}.")
    compare_path_patching(
        model, prompts, counterfactual, RECEIVERS, options.senders, options.prompts
    )


if __name__ == "__main__":
    main()
