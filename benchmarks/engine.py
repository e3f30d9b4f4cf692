"""The engine against the obvious way: python -m benchmarks.engine --model small

Everything that a page asks for, once as the engine does it and once by its definition: hooked runs
of whole prompts. Ratios count; seconds are of the processor on a CPU and of the clock on a GPU. In
float32, with TF32 off; `--tf32` runs path patching once more with TF32 and compares the heads.

| model | what it is |
|---|---|
| bundled | the bundled base |
| small | random, 12 layers, 12 heads, d_model 768 |
| smollm2 | random, of SmolLM2-135M’s size |
| 7b | random, of Llama-7B's size; only on a GPU with 80 GB or more |
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from backend.core.heads import Head, Site
from backend.core.runtime import Runtime, at_work
from backend.engine.activation_patching import patched_logits, patched_logits_plainly, prepare_clean
from backend.engine.mean_ablation import circuit_logits, circuit_logits_plainly, prepare_ablated_run
from backend.engine.path_patching.quick import quick_scores_of
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import scores_of
from backend.engine.positions import (
    input_ids,
    mean_head_outputs,
    position_head_outputs,
)
from backend.engine.validation import can_take_apart
from backend.methods.cmap import cmap, group_sets, head_map
from backend.methods.discovery import summarised
from backend.methods.evaluation import Evaluation
from backend.methods.minimality import minimality, n_circuits
from backend.methods.quick import N_TOKENS
from backend.tasks.entity_tracking import counterfactual_prompts, reference_prompts, sample_prompts
from backend.tasks.prompts import PromptSet
from benchmarks.cases import CASES, SEVEN_B_NEEDS_GB, Case, rehearsal
from benchmarks.measuring import forget_peak, peak_memory, timed, typical_seconds
from benchmarks.path_patching import MeasuredStage, compare_path_patching, measure_stages

_TOP = 20


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for on the models that this machine can hold."""
    options = _options(arguments)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.set_num_threads(options.threads)
    parts = PARTS | {"path-patching": partial(compare_stages, with_tf32=options.tf32)}
    print(f"{machine(device)}, torch {torch.__version__}, float32\n")
    for name in options.model:
        if name == "7b" and not options.dry and (reason := why_not_7b(device)):
            print(f"Llama-7B’s size was not measured: {reason}\n")
            continue
        case = (rehearsal if options.dry else CASES[name])(device)
        if options.prompts:
            case = replace(case, n_prompts=options.prompts, n_clicked=options.prompts)
        print(f"# {case.name}\n")
        if not can_take_apart(case.loaded.model):
            print("The engine cannot take this model apart and runs it whole.\n")
        for part in options.parts:
            forget_peak(device)
            parts[part](case)
            print(f"peak memory: {peak_memory(device)}\n", flush=True)


def machine(device: torch.device) -> str:
    """What the figures were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def why_not_7b(device: torch.device) -> str | None:
    """Why this device is too small for Llama-7B's size; None if it is not."""
    if device.type != "cuda":
        return (
            f"it needs a GPU with {SEVEN_B_NEEDS_GB} GB, and this is the CPU. Its figures are open."
        )
    there = torch.cuda.get_device_properties(device).total_memory / 1e9
    if there < SEVEN_B_NEEDS_GB:
        return (
            f"it needs {SEVEN_B_NEEDS_GB} GB, and this GPU has {there:.0f}. Its figures are open."
        )
    return None


def compare_stages(case: Case, with_tf32: bool = False) -> None:
    """Path patching stage by stage, and what TF32 does to its speed and its heads."""
    prompts = sample_prompts(case.loaded.tokenizer, case.n_prompts)
    counterfactual = counterfactual_prompts(case.loaded.tokenizer, prompts)
    measured = compare_path_patching(
        case.loaded.model,
        prompts,
        counterfactual,
        case.receivers,
        case.n_senders,
        case.n_obvious,
    )
    if with_tf32:
        _compare_tf32(case, RunPairs(case.loaded.model, prompts, counterfactual), measured)


def _compare_tf32(case: Case, pairs: RunPairs, without: Mapping[str, MeasuredStage]) -> None:
    print("With TF32       s   without   heads shared by the top 20   of these in the same place")
    with at_work(Runtime(tf32=True, n_threads=torch.get_num_threads())):
        for group, stage in measure_stages(pairs, case.device, case.receivers):
            heads, expected = top_heads(stage.scores), top_heads(without[group].scores)
            shared = set(heads) & set(expected)
            same = sum(a == b for a, b in zip(heads, expected, strict=False))
            print(
                f"{group:6} {stage.seconds:10.2f} {without[group].seconds:9.2f} "
                f"{f'{len(shared)} of {len(expected)}':>28} {same:26}",
                flush=True,
            )


def compare_quick(case: Case) -> None:
    """Stages in which few tokens of each prompt run again, against all."""
    model: Any = case.loaded.model
    tokenizer = case.loaded.tokenizer
    model.set_attn_implementation("eager")  # as models are loaded, and tells where heads look
    prompts = sample_prompts(tokenizer, case.n_prompts)
    pairs = RunPairs(model, prompts, counterfactual_prompts(tokenizer, prompts))
    for batch in pairs.batches:
        pairs.of(batch)
    print(f"At most {N_TOKENS} tokens run again, {len(prompts)} prompts")
    print("stage          s   all of them / s   share   strongest heads shared")
    for group, receivers in case.receivers.items():
        exactly, scores = timed(case.device, scores_of, pairs, group, receivers)
        taken, estimated = timed(case.device, quick_scores_of, pairs, group, receivers, N_TOKENS)
        heads, expected = top_heads(estimated), top_heads(scores)
        shared = f"{len({*heads} & {*expected})} of {len(expected)}"
        print(
            f"{group:5} {taken:10.2f} {exactly:17.2f} {taken / exactly:7.3f} {shared:>24}",
            flush=True,
        )
    print("(What is lost in trained models is in the README: random ones look everywhere.)")


def top_heads(scores: Tensor) -> tuple[Head, ...]:
    """The most negative heads of a stage, the first ones first; scores [n, n_layers, n_heads]."""
    return summarised("", scores, ()).strongest(_TOP)


def compare_circuits(case: Case) -> None:
    """One circuit, as a hooked run of the whole prompts and over cached positions."""
    model = case.loaded.model
    prompts, reference = _prompts_and_reference(case, case.n_clicked)
    means, sites = mean_head_outputs(model, reference), case.circuit.sites
    ids = input_ids(model, prompts)
    with torch.no_grad():
        plainly = partial(model, input_ids=ids, use_cache=False, logits_to_keep=1)
        plain = typical_seconds(case.device, plainly)
    _heading(f"A circuit on {len(prompts)} prompts", "a plain run")
    _row("plain run", plain, plain)
    obvious = partial(circuit_logits_plainly, model, prompts, means, sites)
    _row("hooked run of the whole prompts", typical_seconds(case.device, obvious), plain)
    taken, ablated_run = timed(case.device, prepare_ablated_run, model, prompts, means)
    _row("what all circuits share, once", taken, plain)
    ours = partial(circuit_logits, ablated_run, sites)
    _row("over the cached positions", typical_seconds(case.device, ours), plain, ours() - obvious())


def compare_clicks(case: Case) -> None:
    """A click on a head in the middle of the model, at each vital token."""
    model, layer = case.loaded.model, case.loaded.shape.n_layers // 2
    prompts = sample_prompts(case.loaded.tokenizer, case.n_clicked)
    values = position_head_outputs(model, counterfactual_prompts(case.loaded.tokenizer, prompts))
    clean = prepare_clean(model, prompts)
    _heading(f"A click at layer {layer} on {len(prompts)} prompts", "the obvious way")
    for position in reversed(case.circuit.task.position_names):
        patch = [Site(Head(layer, 1), position)]
        obvious = partial(patched_logits_plainly, model, prompts, patch, values)
        ours = partial(patched_logits, clean, patch, values)
        seconds, against = (typical_seconds(case.device, way) for way in (ours, obvious))
        _row(f"at the token {position}", seconds, against, ours() - obvious())


def compare_minimality(case: Case) -> None:
    """Minimality of the circuit, against as many hooked runs as it asks for circuits."""
    evaluation = _subject(case)
    taken, _ = timed(case.device, minimality, evaluation, case.circuit)
    n_asked = n_circuits(case.circuit)
    once = partial(circuit_logits_plainly, case.loaded.model, evaluation.prompts, evaluation.means)
    obvious = n_asked * typical_seconds(case.device, lambda: once(case.circuit.sites), most=3)
    _heading(f"Minimality on {case.n_prompts} prompts", "the obvious way")
    _row(f"{len(case.circuit.members)} heads, {n_asked} circuits", taken, obvious)
    print("(The obvious way is one hooked run, multiplied.)")


def compare_cmap(case: Case) -> None:
    """CMAP of the usual sets and of every head; the source is the model itself, no cheaper."""
    source, target = _subject(case), _subject(case)
    sets = group_sets(case.circuit)
    taken, _ = timed(case.device, cmap, source, target, sets)
    mapped, _ = timed(case.device, head_map, source, target, ["last"])
    model, prompts = case.loaded.model, target.prompts
    values = position_head_outputs(model, prompts)
    patched = partial(patched_logits_plainly, model, prompts, values=values)
    once = typical_seconds(case.device, lambda: patched(case.circuit.sites), most=3)
    n_heads = case.loaded.shape.n_layers * case.loaded.shape.n_heads
    _heading(f"CMAP on {case.n_prompts} prompts", "the obvious way")
    _row(f"{len(sets)} sets of heads, from the start", taken, once * (3 + len(sets)))
    _row(f"{n_heads} heads at the last token", mapped, once * (3 + n_heads))
    print("(The obvious way is one hooked run, multiplied; both models run whole, and the source’s")
    print("heads are recorded.)")


def _subject(case: Case) -> Evaluation:
    return Evaluation(case.loaded, *_prompts_and_reference(case, case.n_prompts))


def _prompts_and_reference(case: Case, n: int) -> tuple[PromptSet, PromptSet]:
    tokenizer = case.loaded.tokenizer
    return sample_prompts(tokenizer, n), reference_prompts(tokenizer, n)


def _heading(what: str, against: str) -> None:
    print(f"{what + ':':36} {'s':>9} {against + ' / s':>22}   share   max difference")


def _row(what: str, seconds: float, against: float, difference: Tensor | None = None) -> None:
    gap = "" if difference is None else f"{float(difference.abs().max()):17.1e}"
    share = seconds / against
    print(f"  {what:34} {seconds:9.4f} {against:22.4f} {share:7.3f}{gap}", flush=True)


PARTS: dict[str, Callable[[Case], None]] = {
    "circuits": compare_circuits,
    "clicks": compare_clicks,
    "cmap": compare_cmap,
    "minimality": compare_minimality,
    "path-patching": compare_stages,
    "quick": compare_quick,
}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine",
        description=__doc__.partition("\n\n")[2] if __doc__ else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", nargs="+", choices=CASES, default=[*CASES])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument("--tf32", action="store_true", help="path patching with TF32, too")
    parser.add_argument(
        "--prompts", type=int, help="instead of as many as the model has by default"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--dry", action="store_true", help="rehearse 7b on a tiny model, on any device"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
