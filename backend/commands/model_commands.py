"""The subcommands that say which models are known, and change it."""

from __future__ import annotations

import argparse
from typing import Any

from backend.commands.parts import add_command, progress, say
from backend.core.arguments import checked_by
from backend.core.errors import UserError
from backend.models import catalogue, loaded_models, real_model, registry
from backend.models.adapters_seen import seen
from backend.models.adding import add_model
from backend.models.gguf_folders import origin_of
from backend.models.weights import cached, trouble


def add_to(commands: Any) -> None:
    """Add models, add, remove and real."""
    add_command(commands, "models", _models, "the known models and circuits", "models")
    add = add_command(
        commands,
        "add",
        _add,
        "keep a model of your own under a name",
        "add mine owner/name --adapter ~/adapters/mine --finetuned-on arithmetic",
    )
    add.add_argument("name", type=checked_by(catalogue.plain_name), metavar="NAME")
    add.add_argument("source", metavar="SOURCE", help="a hub name, a folder or a GGUF file")
    add.add_argument("--adapter", default="", help="a hub name or the folder of a PEFT adapter")
    add.add_argument("--label", default="", help="what to call it on screen (default: NAME)")
    add.add_argument("--finetuned-on", default="", metavar="WHAT", help="what it was trained on")
    remove = add_command(
        commands, "remove", _remove, "forget a model that was added; its files stay", "remove mine"
    )
    remove.add_argument("name", metavar="NAME")
    add_command(
        commands,
        "real",
        _real,
        f"fetch {real_model.LABEL} and add it, with adapters on it ({real_model.SIZE})",
        "real",
    )


def _models(_: argparse.Namespace) -> Any:
    listed = {
        "models": [_described(entry) for entry in registry.models().values()],
        "circuits": {name: str(path) for name, path in catalogue.circuits().items()},
    }
    complaint = registry.added().complaint
    return listed | ({"complaint": complaint} if complaint else {})


def _add(options: argparse.Namespace) -> Any:
    about = options.adapter, options.finetuned_on, options.label
    return _described(add_model(options.name, options.source, *about, report=progress()))


def _real(_: argparse.Namespace) -> Any:
    added = real_model.add(progress())
    for entry, is_new in added:
        say(f"“{entry.name}” is {'added' if is_new else 'there already'}: choose it as a model")
    return [_described(entry) for entry, _ in added]


def _remove(options: argparse.Namespace) -> Any:
    registry.remove(options.name)
    return {"removed": options.name}


def _described(entry: registry.Entry) -> dict[str, Any]:
    places = [place for place in (entry.source, entry.adapter) if place is not None]
    origin = origin_of(entry.source)
    made_of = f"{origin.file}: {origin}" if origin else None
    wrong = next((said for place in places if (said := trouble(place))), None)
    return {
        "name": entry.name,
        "label": entry.label,
        "kind": entry.kind.name,
        "source": str(entry.source),
        "adapter": str(entry.adapter) if entry.adapter else None,
        "finetuned_on": entry.finetuned_on,
        "paper_counterpart": entry.paper_counterpart,
        "on_this_computer": all(cached(place) for place in places),
    } | {
        name: said
        for name, said in (("made_of", made_of), ("complaint", wrong), ("found", _found(entry)))
        if said
    }


def _found(entry: registry.Entry) -> str | None:
    """What was found of its adapter when it was last loaded."""
    try:
        return seen(loaded_models.fingerprint_of(entry.name, patiently=False))
    except (UserError, OSError):
        return None  # loading says what is wrong with it
