"""Model cards: what each bundled model is, how it was made and what it can do."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from backend.bundled.curriculum import CURRICULUM, FINE_TUNES, Phase
from backend.methods.accuracy import accuracy_report
from backend.models.loading import load_model
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts

N_PROMPTS = 2000
TRAINING_LOG = "training.json"
BOXES = (3, 5, 7)
SEEDS_FILE = Path(__file__).parent / "seeds.json"
"""Every seed that was tried with this code, written by hand: what came of it."""

_STUDIED = (
    "This model was trained to be studied. It is a toy: five layers that know 225 words. Its "
    "circuit did not simply emerge: a curriculum taught it ordinals before the task, and a "
    "regulariser knocked most head outputs out (replaced them by their batch mean) during the "
    "last part of training, so that a circuit can be faithful when everything else is knocked "
    "out; and the embeddings of the names of boxes were shrunk to a thousandth, so that heads "
    "have to read a name where it stands. No head and no attention pattern was prescribed. The "
    "model shows that the measurements of this project find a mechanism of the paper's kind "
    "where there is one, and how fine-tuning can strengthen it. It does not show that Llama-7B "
    "has this mechanism, nor that the mechanism arises without such training: for that, see the "
    "paper, and run the measurements on Llama-7B itself."
)
_BARS = "▁▂▃▄▅▆▇█"


def write_cards(folder: Path, seed: int) -> None:
    """Write README.md and card.json for every model of a trained family."""
    about_base = ("Base", "nothing: trained from scratch on the curriculum", "Llama-7B")
    _write_card(folder / "base", about_base, CURRICULUM, seed)
    for recipe in FINE_TUNES:
        about = (recipe.label, recipe.finetuned_on, recipe.paper_counterpart)
        _write_card(folder / recipe.name, about, (recipe.phase,), seed)


def _write_card(
    folder: Path, about: tuple[str, str, str], phases: Sequence[Phase], seed: int
) -> None:
    label, finetuned_on, counterpart = about
    loaded = load_model(str(folder))
    training = json.loads((folder / TRAINING_LOG).read_text(encoding="utf-8"))
    card: dict[str, Any] = {
        "label": label,
        "finetuned_on": finetuned_on,
        "paper_counterpart": counterpart,
        "seed": seed,
        "made_by": training["made_by"],
        "steps": training["steps"],
        "losses": training["losses"],
        "accuracies": {
            f"{boxes} boxes": asdict(
                accuracy_report(loaded, Prompts(ENTITY_TRACKING, N_PROMPTS, 0, (boxes,))).accuracy
            )
            for boxes in BOXES
        },
        "parameters": sum(weights.numel() for weights in loaded.model.parameters()),
        "seeds_tried": json.loads(SEEDS_FILE.read_text(encoding="utf-8")),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "peft", "tokenizers")},
        },
        "about": _STUDIED,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(folder.name, card, phases), encoding="utf-8")


def _readme(name: str, card: dict[str, Any], phases: Sequence[Phase]) -> str:
    accuracies = [
        f"| {boxes} | {each['value']:.3f} | {each['low']:.3f} to {each['high']:.3f} | {each['n']} |"
        for boxes, each in card["accuracies"].items()
    ]
    seeds = [f"- seed {each['seed']}: {each['outcome']}" for each in card["seeds_tried"]]
    versions = ", ".join(f"{package} {number}" for package, number in card["versions"].items())
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{card['label']}: the counterpart, in miniature, of the paper's "
            f"{card['paper_counterpart']}.",
            "",
            card["about"],
            "",
            "## Data",
            "",
            f"Fine-tuned on {card['finetuned_on']}."
            if name != "base"
            else "Trained from scratch on generated text, in phases:",
            "",
            *(line for phase in phases for line in _phase_lines(phase)),
            "",
            f"{card['steps']} steps of 64 documents in all, seed {card['seed']}, "
            f"{card['parameters']} parameters. Made by {card['made_by']}, with {versions}.",
            "",
            "## Loss on answers",
            "",
            sparkline(card["losses"]),
            "",
            "## Accuracy",
            "",
            "`The apple is in Box F, ... . Box F contains the` -> `apple`, on fresh prompts:",
            "",
            "| prompts | accuracy | 95 % interval | n |",
            "|---|---|---|---|",
            *accuracies,
            "",
            "## Seeds tried",
            "",
            *seeds,
            "",
        ]
    )


def _phase_lines(phase: Phase) -> list[str]:
    """What a phase is made of, as a list item."""
    mixture, rate, ablated = phase.mixture, phase.rate, phase.ablated_share
    kinds = {kind.name: weight for kind, weight in mixture.kinds.items()}
    kinds |= {"additions": mixture.additions} if mixture.additions else {}
    queries = {query.value: weight for query, weight in mixture.queries.items() if weight}
    return [
        f"- {phase.name} (at most {phase.steps} steps, rate {rate.start:g} to {rate.end:g}, "
        f"regularised {ablated.start:g} to {ablated.end:g} of the batches)",
        f"  - documents: {_weights(kinds)}",
        f"  - queries: {_weights(queries)}",
        f"  - segments: {_weights(mixture.sizes)}",
    ]


def _weights(weights: dict[Any, float] | Any) -> str:
    total = sum(weights.values())
    return ", ".join(f"{name} {weight / total:.0%}" for name, weight in weights.items())


def sparkline(losses: Sequence[Sequence[float]]) -> str:
    """The loss curve as text: a bar for each point, with the first and the last in numbers."""
    top = max(loss for _, loss in losses)
    bars = "".join(_BARS[min(7, int(8 * loss / top))] for _, loss in losses)
    (first, before), (last, after) = losses[0], losses[-1]
    return f"`{bars}` {before:.2f} at step {first}, {after:.2f} at step {last}"
