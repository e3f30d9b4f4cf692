"""What the subcommands of the command line share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend import catalogue
from backend.circuit import Circuit
from backend.errors import UserError
from backend.placement import AUTO, Dtype, Placement

if TYPE_CHECKING:
    from backend.loading import LoadedModel

if TYPE_CHECKING:
    from backend.loading import LoadedModel


def add_command(
    commands: Any, name: str, run: Callable[[Any], Any], purpose: str, example: str
) -> argparse.ArgumentParser:
    """A subcommand, with its purpose and an example in its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog=f"example: python -m backend {example}",
    )
    parser.set_defaults(run=run)
    return parser


def add_models(parser: argparse.ArgumentParser) -> None:
    """One model or more."""
    parser.add_argument("models", nargs="+", metavar="MODEL")


def add_prompts(parser: argparse.ArgumentParser, n: int) -> None:
    """How many prompts, of which kind; `n` unless the user says otherwise."""
    parser.add_argument("--prompts", type=int, default=n, help=f"how many (default: {n})")
    parser.add_argument("--boxes", type=int, default=7, help="boxes in each, 2 to 10 (default: 7)")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts (default: 0)")


def add_placement(parser: argparse.ArgumentParser) -> None:
    """Where the models run, and in which numbers."""
    parser.add_argument(
        "--device",
        default=AUTO,
        help="auto, cpu, cuda:N, or spread over all GPUs (default: auto, a GPU if there is one)",
    )
    parser.add_argument(
        "--dtype",
        choices=Dtype.__members__,
        default="float32",
        help="numbers of weights and activations (default: float32)",
    )
    parser.add_argument(
        "--tf32", action="store_true", help="let a GPU multiply float32 faster and less exactly"
    )


def load(options: argparse.Namespace, name: str) -> LoadedModel:
    """The model, where and in the numbers that the options say; raises UserError."""
    from backend.shelf import load

    placement = Placement(options.device, Dtype[options.dtype], options.tf32)
    loaded = load(name, placement, _loading(name) if sys.stderr.isatty() else lambda *_: None)
    for note in loaded.notes:
        print(f"{name}: {note}", file=sys.stderr)
    return loaded


def add_circuit(parser: argparse.ArgumentParser) -> None:
    """Which circuit."""
    parser.add_argument(
        "--circuit", default="base", help="a circuit's name or JSON file (default: base)"
    )


def read_circuit(name_or_file: str) -> Circuit:
    """The circuit of this name or in this file; raises UserError when there is none."""
    path = Path(name_or_file)
    return catalogue.read_circuit(path) if path.is_file() else catalogue.circuit(name_or_file)


def checked_by(check: Callable[[str], str]) -> Callable[[str], str]:
    """An argument's type: text that passes a check which raises UserError."""

    def checked(text: str) -> str:
        try:
            return check(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked


def prompts_of(options: argparse.Namespace) -> tuple[int, int, int]:
    """How many prompts, of how many boxes, and their seed."""
    return options.prompts, options.boxes, options.seed


def about(options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "prompts": options.prompts,
        "boxes": options.boxes,
        "seed": options.seed,
        "device": options.device,
        "dtype": options.dtype,
        "tf32": options.tf32,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def shown(what: str) -> Callable[[int, int], None]:
    """A progress that is shown on standard error."""

    def show(done: int, total: int) -> None:
        end = "\n" if done == total else ""
        print(f"\r{what}: {done / total:4.0%}", end=end, file=sys.stderr, flush=True)

    return show


def _loading(name: str) -> Callable[[str, float], None]:
    return lambda _, share: shown(f"loading {name}")(round(100 * share), 100)
