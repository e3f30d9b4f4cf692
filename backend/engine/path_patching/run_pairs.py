"""What path patching starts from: clean and counterfactual runs, and the group's token in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from backend.engine.activation_patching import CleanRun, clean_logits, prepare_clean
from backend.engine.answers import log_probability
from backend.engine.architectures import shape_of
from backend.engine.costs import Scale
from backend.engine.hooks import recorded_head_outputs
from backend.engine.memory import prompt_batches
from backend.engine.positions import position_head_outputs, position_tokens
from backend.engine.replay import FullRun
from backend.engine.validation import can_take_apart
from backend.tasks.prompts import PromptSet, select
from backend.tasks.task import Group


@dataclass(frozen=True, eq=False)
class RunPair:
    """The clean and the counterfactual run of some prompts.

    heads, counterfactual [n_layers, n, n_positions, n_heads, d_head]: head outputs at the task's
    tokens, in the counterfactual at its own. answers [n], token ids; choices [n, k], theirs and
    those of the answers that they compete with.
    """

    clean: CleanRun
    heads: Tensor
    counterfactual: Tensor
    answers: Tensor
    choices: Tensor


class RunPairs:
    """The pairs of runs that path patching compares, batch by batch, as they fit into memory.

    The latest batch is kept: prompts that fit into one run once for all stages.
    """

    def __init__(self, model: nn.Module, prompts: PromptSet, counterfactual: PromptSet) -> None:
        self.model = model
        self.task = prompts.task
        self.n_prompts = len(prompts)
        self.scale = Scale(*shape_of(model)[:2], prompts.input_ids.shape[1], prompts.task.positions)
        self.batches = prompt_batches(model, *prompts.input_ids.shape)
        self._latest: slice | None = None
        self._pair = lru_cache(maxsize=1)(partial(_run_pair, model, prompts, counterfactual))

    def of(self, batch: slice) -> RunPair:
        """The runs of a batch, made when they are asked for."""
        pair = self._pair(batch.start, batch.stop)
        self._latest = batch
        return pair

    def cost_of(self, batch: slice) -> float:
        """What the runs of a batch cost for each of its prompts; nothing if they are kept."""
        return 0.0 if batch == self._latest else 2 * self.scale.runs(1)

    @cached_property
    def clean_probability(self) -> float:
        """Of the right answers in the clean runs, mean over prompts."""
        pairs = (self.of(batch) for batch in self.batches)
        found = torch.cat([_clean_probability(pair) for pair in pairs])
        return float(found.double().mean())


def _run_pair(
    model: nn.Module, prompts: PromptSet, counterfactual: PromptSet, start: int, stop: int
) -> RunPair:
    numbers = np.arange(len(prompts))
    chosen = (start <= numbers) & (numbers < stop)
    prompts = select(prompts, chosen)
    tokens = position_tokens(model, prompts)
    can_take_apart(model)  # Measured now, while nobody listens in.
    with recorded_head_outputs(model, tokens) as recorded:
        clean = prepare_clean(model, prompts)
    heads = torch.stack(recorded) if recorded else position_head_outputs(model, prompts)
    other_heads = position_head_outputs(model, select(counterfactual, chosen))
    answers, choices = (
        torch.tensor(ids, device=tokens.device) for ids in (prompts.answer_ids, prompts.choice_ids)
    )
    return RunPair(clean, heads, other_heads, answers, choices)


@torch.no_grad()
def _clean_probability(pair: RunPair) -> Tensor:
    return log_probability(clean_logits(pair.clean)[:, None], pair.answers)[:, 0].exp()


@dataclass(frozen=True, eq=False)
class Scene:
    """Prompts whose group's token is the same.

    clean, counterfactual [n_layers, n, n_heads, d_head]: head outputs at that token.
    """

    model: nn.Module
    run: FullRun
    token: int
    clean: Tensor
    counterfactual: Tensor


def part_of(scene: Scene, rows: Tensor) -> Scene:
    """The scene of some of its prompts, by row numbers."""
    clean, other = scene.clean[:, rows], scene.counterfactual[:, rows]
    return Scene(scene.model, scene.run.of_prompts(rows), scene.token, clean, other)


def scenes(pair: RunPair, run: FullRun, group: Group) -> Iterator[tuple[Tensor, Scene]]:
    """Row numbers in the pair, and their scene, for each token at which the group may be."""
    position = pair.clean.positions.index(group.position)
    tokens = pair.clean.tokens[:, position]
    for token in tokens.unique().tolist():
        rows = (tokens == token).nonzero()[:, 0]
        everyone = len(rows) == len(tokens)
        yield (
            rows,
            Scene(
                pair.clean.model,
                run if everyone else run.of_prompts(rows),
                token,
                pair.heads[:, rows, position],
                pair.counterfactual[:, rows, position],
            ),
        )
