"""A model under examination: which prompts it answers right, whole, in part or without a part."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property, partial
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.core.heads import Site
from backend.core.kept import Kept
from backend.core.metrics import Ablation, Metric, Tokens
from backend.core.progress import Progress, silent
from backend.core.runtime import at_work
from backend.engine import checkpoints
from backend.engine.activation_patching import CleanRun, clean_logits, patched_logits, prepare_clean
from backend.engine.answers import measured, read_answers
from backend.engine.architectures import device_of
from backend.engine.costs import Scale
from backend.engine.mean_ablation import (
    CIRCUITS_AT_ONCE,
    AblatedRun,
    alike_first,
    circuits_measured,
    prepare_ablated_run,
    prepare_resampled_run,
    with_circuits,
)
from backend.engine.memory import chunks, memory_errors_explained, moved
from backend.engine.positions import (
    all_sites,
    position_head_outputs,
    position_means,
    zero_head_outputs,
)
from backend.methods.reference_means import reference_means
from backend.methods.requests import N_REFERENCE
from backend.models.loaded_models import load, until_unload
from backend.models.loading import LoadedModel
from backend.tasks.chance import ForcedChoice, forced_choice
from backend.tasks.prompts import Prompts, PromptSet, select

Right = NDArray[np.bool_]
"""Whether prompts are answered right: [n], or [k, n] for k interventions."""
Rows = NDArray[Any]
"""A metric of the answers, [n] or [k, n]: bools for accuracy, else float64."""
Questions = Sequence[Collection[Site]]
"""Interventions, each by its sites."""


class Batch:
    """Some prompts of an evaluation, and what their interventions start from, made when needed.

    chosen: which of all its prompts they are.
    """

    def __init__(self, evaluation: Evaluation, chosen: NDArray[np.bool_]) -> None:
        self.prompts = select(evaluation.prompts, chosen)
        self.chosen = chosen
        self._evaluation = evaluation
        self._started: tuple[str, AblatedRun] | None = None

    @cached_property
    def clean(self) -> CleanRun:
        """The untouched run."""
        return prepare_clean(self._evaluation.loaded.model, self.prompts)

    @cached_property
    def ablated_run(self) -> AblatedRun:
        """The run with every head knocked out."""
        model = self._evaluation.loaded.model
        if self._evaluation.ablation is Ablation.resample:
            return prepare_resampled_run(model, self.prompts, self._counterfactual)
        return prepare_ablated_run(model, self.prompts, self._evaluation.means)

    def started(self, circuits: Questions) -> AblatedRun:
        """The ablated run from which these circuits start; the latest is kept."""
        name = _name_of(circuits)
        if self._started is None or self._started[0] != name:
            self._started = name, with_circuits(self.ablated_run, circuits)
        return self._started[1]

    def move(self, device: torch.device) -> None:
        """Take what was made so far to a device."""
        self._started = moved(self._started, device)
        for name in ("clean", "ablated_run", "off_values"):
            if name in self.__dict__:
                self.__dict__[name] = moved(self.__dict__[name], device)

    @cached_property
    def off_values(self) -> Tensor:
        """What knocked-out sites give: [n_layers, n, n_positions, n_heads, d_head]."""
        if self._evaluation.ablation is Ablation.resample:
            return position_head_outputs(self._evaluation.loaded.model, self._counterfactual)
        return position_means(self._evaluation.means, self.prompts)

    @property
    def _counterfactual(self) -> PromptSet:
        return select(self._evaluation.counterfactual, self.chosen)

    def right(self, logits: Tensor) -> Tensor:
        """Whether logits [n, vocab] answer right, as one row: [1, n]."""
        return self.measured(logits[None], Metric.accuracy)

    def measured(self, logits: Tensor, metric: Metric) -> Tensor:
        """A metric of logits [k, n, vocab]: [k, n]."""
        return measured(logits, *self._asked, metric).cpu()

    @cached_property
    def _asked(self) -> tuple[Tensor, Tensor]:
        """Token ids of the right answers [n] and of the choices [n, k]."""
        return torch.tensor(self.prompts.answer_ids), torch.tensor(self.prompts.choice_ids)


class Evaluation:
    """A model and the prompts it is asked, in batches that fit into memory.

    Knocked-out heads take their means over `reference`, prompts drawn independently, or what else
    the ablation says. The latest batches are kept, beside the model or, if that is full, in the
    CPU's memory: prompts that fit into them run once for all questions.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        prompts: PromptSet,
        reference: PromptSet,
        ablation: Ablation = Ablation.mean,
    ) -> None:
        self.loaded = loaded
        self.ablation = ablation
        self.prompts = prompts
        self.n_reference = len(reference)
        self._reference = reference
        n, length = prompts.input_ids.shape
        self._chunks = chunks(loaded.model, n, length, ablation)
        self._batches: OrderedDict[int, Batch] = OrderedDict()
        self._whole: dict[Metric, Rows] = {}

    @property
    def scale(self) -> Scale:
        """What its runs cost."""
        n_layers, n_heads, *_ = self.loaded.shape
        return Scale(
            n_layers, n_heads, self.prompts.input_ids.shape[1], self.prompts.task.positions
        )

    def share_alone(self, n_circuits: int, parts: Questions) -> float:
        """What so many circuits alone cost, out of them and the whole model without these parts."""
        runs, circuits = self.scale.runs(1), self.scale.circuits(1, n_circuits)
        return (runs + circuits) / (2 * runs + circuits + self.scale.patches(1, parts))

    @cached_property
    def means(self) -> Tensor:
        """Head outputs averaged over the reference, or zeros: [n_layers, seq, n_heads, d_head]."""
        return self._averaged(silent)

    def average(self, progress: Progress) -> None:
        """Make the means now, unless they are there; `progress` counts reference prompts.

        There is nothing to average where heads are resampled.
        """
        if self.ablation is not Ablation.resample and "means" not in self.__dict__:
            self.means = self._averaged(progress)

    @cached_property
    def counterfactual(self) -> PromptSet:
        """What each prompt's heads are resampled from."""
        return self.prompts.task.counterfactual(self.loaded.tokenizer, self.prompts)

    def _averaged(self, progress: Progress) -> Tensor:
        if self.ablation is Ablation.zero:
            return zero_head_outputs(self.loaded.model, self.prompts)
        return reference_means(self.loaded, self._reference, progress)

    def run_by(self, loaded: LoadedModel) -> Evaluation:
        """The same prompts in another model, whose knocked-out heads take the means of this one.

        Raises ValueError where heads are resampled: there are no means.
        """
        if self.ablation is Ablation.resample:
            raise ValueError("resampled heads have no means")
        other = Evaluation(loaded, self.prompts, self._reference, self.ablation)
        other.means = self.means
        return other

    @property
    def whole(self) -> Right:
        """What the untouched model answers right: [n]."""
        return self.whole_by(Metric.accuracy)

    def whole_by(self, metric: Metric, progress: Progress = silent) -> Rows:
        """A metric of what the untouched model answers: [n]; made once."""

        def ask(batch: Batch, _: Questions) -> Iterator[Tensor]:
            yield batch.measured(clean_logits(batch.clean)[None], metric)

        if metric not in self._whole:
            self._whole[metric] = self.answered([()], ask, 0.0, progress, metric=metric)[0]
        return self._whole[metric]

    def answer(self, progress: Progress) -> None:
        """Make `whole` now, if it is not there."""
        self.whole_by(Metric.accuracy, progress)

    @cached_property
    def forced(self) -> Right:
        """Where the untouched model puts the right answer ahead of those it competes with: [n]."""

        def ask(batch: Batch, _: Questions) -> Iterator[Tensor]:
            answers = read_answers([clean_logits(batch.clean)], batch.prompts)
            yield torch.from_numpy(answers.forced)[None]

        return self.answered([()], ask, 0.0)[0]

    @property
    def choice(self) -> ForcedChoice:
        """How the untouched model does beside guessing."""
        return forced_choice(self.forced, self.prompts.n_choices)

    def circuit_only(
        self,
        circuits: Questions,
        progress: Progress = silent,
        kept_in: Kept | None = None,
        metric: Metric = Metric.accuracy,
        tokens: Tokens = Tokens.every,
    ) -> Rows:
        """What each circuit answers with all other heads knocked out: [n_circuits, n].

        At every token, or at the named ones only.
        """
        if tokens is Tokens.named:
            named = all_sites(self.loaded.shape, self.prompts.task.position_names)
            others = [named - {*sites} for sites in circuits]
            return self.ablated(others, progress, kept_in, metric)

        cost = self.scale.circuits(1, len(circuits))
        folder = self._folder(kept_in, "alone", metric)
        order = alike_first(circuits)
        ordered = [circuits[number] for number in order]

        def ask(batch: Batch, some: Questions) -> Iterator[Tensor]:
            measure = partial(batch.measured, metric=metric)
            return circuits_measured(batch.started(ordered), some, measure)

        rows = self.answered(ordered, ask, cost, progress, folder, metric, at_once=CIRCUITS_AT_ONCE)
        return rows[np.argsort(order)]

    def ablated(
        self,
        parts: Questions,
        progress: Progress = silent,
        kept_in: Kept | None = None,
        metric: Metric = Metric.accuracy,
    ) -> Rows:
        """What the whole model answers with each of these parts knocked out: [n_parts, n]."""

        def ask(batch: Batch, some: Questions) -> Iterator[Tensor]:
            for sites in some:
                logits = patched_logits(batch.clean, sites, batch.off_values)
                yield batch.measured(logits[None], metric)

        cost = self.scale.patches(1, parts)
        folder = self._folder(kept_in, "without", metric)
        return self.answered(parts, ask, cost, progress, folder, metric)

    def _folder(self, kept_in: Kept | None, questions: str, metric: Metric) -> Kept | None:
        """What was answered in one way is never taken for another."""
        return checkpoints.inside(kept_in, f"{questions}-{self.ablation.name}-{metric.name}")

    def answered(
        self,
        questions: Questions,
        ask: Callable[[Batch, Questions], Iterator[Tensor]],
        cost: float,
        progress: Progress = silent,
        kept_in: Kept | None = None,
        metric: Metric = Metric.accuracy,
        dtype: torch.dtype | None = None,
        at_once: int = 1,
    ) -> Rows:
        """Rows of a metric [k, n of the batch] that `ask` gives, put together: [questions, n].

        Or, in another `dtype`, of whatever else `ask` gives.
        `progress` counts what they `cost` on a prompt, and the run of it that they start from; it
        may raise to cancel. What is finished is kept, if there is a place, and only what is not
        there is asked. Questions that run `at_once` are not divided among processes.
        """
        first = self.scale.runs(1)
        size, n = self._chunks.size, len(self.prompts)
        batches = [slice(start, min(n, start + size)) for start in range(0, n, size)]
        folder = checkpoints.inside(kept_in, _name_of(questions))
        dtype = dtype or (torch.bool if metric is Metric.accuracy else torch.float64)

        def told(place: int, done: int) -> None:
            share = (first + cost * done / max(1, len(questions))) / (first + cost)
            progress(place + share, len(batches))

        def rest(batch: slice, start: int, stop: int) -> Iterator[Tensor]:
            return ask(self._batch(batch.start), questions[start:stop])

        with at_work(self.loaded.runtime), memory_errors_explained(self.loaded.model, size):
            n_rows = len(questions)
            return checkpoints.rows(folder, batches, n_rows, rest, told, dtype, at_once).numpy()

    def batches(self) -> Iterator[Batch]:
        """The prompts in order, some at a time."""
        return map(self._batch, range(0, len(self.prompts), self._chunks.size))

    def _batch(self, start: int) -> Batch:
        """The batch that begins with this prompt, beside the model; the oldest make room for it."""
        places = np.arange(len(self.prompts))
        chosen = (start <= places) & (places < start + self._chunks.size)
        batch = self._batches.setdefault(start, Batch(self, chosen))
        self._batches.move_to_end(start)
        waiting = list(self._batches)[: -self._chunks.n_kept]
        for old in waiting[: len(waiting) - self._chunks.n_waiting]:
            del self._batches[old]
        for old in waiting[max(0, len(waiting) - self._chunks.n_waiting) :]:
            self._batches[old].move(torch.device("cpu"))
        batch.move(device_of(self.loaded.model))
        return batch


def examine(
    loaded: LoadedModel, prompts: Prompts, ablation: Ablation = Ablation.mean
) -> Evaluation:
    """The model with these prompts, and its reference prompts of the same seed."""
    return Evaluation(
        loaded,
        prompts.sample(loaded.tokenizer),
        prompts.reference(loaded.tokenizer, N_REFERENCE),
        ablation,
    )


@until_unload(maxsize=2)
def evaluation(model: str, prompts: Prompts, ablation: Ablation) -> Evaluation:
    """The model under examination; a pair is kept, so that one more question costs little."""
    return examine(load(model), prompts, ablation)


def _name_of(questions: Questions) -> str:
    """The same in every process, and of no other questions: an answer is never to another one."""
    named = [sorted((*head, position) for head, position in sites) for sites in questions]
    return sha256(str(named).encode()).hexdigest()[:24]
