"""The engine from the command line: results as JSON on standard output, progress on the other."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from backend import catalogue, circuit_commands, model_commands
from backend.circuit import Group
from backend.command_parts import (
    about,
    add_circuit,
    add_command,
    add_models,
    add_placement,
    add_prompts,
    checked_by,
    load,
    prompts_of,
    read_circuit,
)
from backend.errors import UserError
from backend.placement import Dtype
from backend.saved import plain

if TYPE_CHECKING:
    from backend.loading import LoadedModel

_EXAMPLES = """examples:
  python -m backend models
  python -m backend accuracy base arithmetic-lora --prompts 1000
  python -m backend faithfulness base chat --circuit base
  python -m backend discover base --prompts 100 --keep A=8 B=6 C=4 D=4 --save found
  python -m backend compare base arithmetic-lora chat --save family
  python -m backend cmap arithmetic-full base --part v
  python -m backend accuracy ~/models/my-llama --boxes 5 --seed 3
  python -m backend add mine owner/name && python -m backend discover mine --device cuda:0
"""

_DEFAULT_SIZES = {Group.A: 8, Group.B: 6, Group.C: 4, Group.D: 4}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns 0, or 1 after a message about what to put right."""
    options = _parser().parse_args(arguments)
    try:
        result = options.run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to start over", file=sys.stderr)
        return 130
    print(json.dumps(plain(result), indent=2))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backend",
        description="Find and measure the entity-tracking circuit of a language model. A MODEL is "
        "a name that the command models lists, the folder of a Hugging Face model, or a hub "
        "name such as owner/name.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    model_commands.add_to(commands)
    accuracy = add_command(
        commands, "accuracy", _accuracy, "how well models do the task", "accuracy base chat"
    )
    add_models(accuracy)
    add_prompts(accuracy, 1000)
    add_placement(accuracy)
    faithfulness = add_command(
        commands,
        "faithfulness",
        _faithfulness,
        "how much of the models a circuit does alone, with everything else knocked out",
        "faithfulness base arithmetic-full --circuit base",
    )
    add_models(faithfulness)
    add_circuit(faithfulness)
    add_prompts(faithfulness, 1000)
    add_placement(faithfulness)
    discover = add_command(
        commands,
        "discover",
        _discover,
        "find a circuit by path patching, in four stages",
        "discover base --prompts 100 --keep A=8 B=6 C=4 D=4 --save found",
    )
    discover.add_argument("model", metavar="MODEL")
    discover.add_argument(
        "--keep",
        nargs="+",
        type=_kept,
        default=[],
        metavar="GROUP=HEADS",
        help="how many heads to keep in a group (default: A=8 B=6 C=4 D=4)",
    )
    discover.add_argument(
        "--centred",
        action="store_true",
        help="rank heads by their score less the median of their layer",
    )
    discover.add_argument(
        "--save",
        type=checked_by(catalogue.circuit_name),
        metavar="NAME",
        help="keep the circuit under this name, for the dashboard and for --circuit",
    )
    add_prompts(discover, 100)
    add_placement(discover)
    circuit_commands.add_to(commands)
    return parser


def _kept(text: str) -> tuple[Group, int]:
    letter, _, number = text.partition("=")
    if letter not in Group.__members__ or not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"“{text}” is not like B=6: a group A to D, then heads")
    return Group[letter], int(number)


def _accuracy(options: argparse.Namespace) -> Any:
    from backend.reports import accuracy_report

    return about(options) | {
        "models": {
            name: accuracy_report(load(options, name), *prompts_of(options))
            for name in options.models
        }
    }


def _faithfulness(options: argparse.Namespace) -> Any:
    from backend.reports import faithfulness_report

    circuit = read_circuit(options.circuit)
    return about(options) | {
        "circuit": circuit.name,
        "models": {
            name: faithfulness_report(load(options, name), circuit, *prompts_of(options))
            for name in options.models
        },
    }


def _discover(options: argparse.Namespace) -> Any:
    from backend.reports import discovery_report

    sizes = _DEFAULT_SIZES | dict(options.keep)
    loaded = load(options, options.model)
    _say_how_noisy(loaded)
    circuit = discovery_report(loaded, sizes, *prompts_of(options), _show_stage, options.centred)
    if options.save:
        circuit = replace(circuit, name=options.save)
        catalogue.add_circuit(options.save, circuit.to_json().encode())
    return circuit.as_data()


def _say_how_noisy(loaded: LoadedModel) -> None:
    if loaded.placement.dtype is not Dtype.float32:
        from backend.noise import probe, verdict

        print(verdict(probe(loaded), loaded.placement.dtype), file=sys.stderr)


def _show_stage(stage: Group, done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\rstage {stage.name}: {done} of {total}", end=end, file=sys.stderr, flush=True)
