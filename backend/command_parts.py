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


def add_circuit(parser: argparse.ArgumentParser) -> None:
    """Which circuit."""
    parser.add_argument(
        "--circuit", default="base", help="a circuit's name or JSON file (default: base)"
    )


def read_circuit(name_or_file: str) -> Circuit:
    """The circuit of this name or in this file; raises UserError when there is none."""
    path = Path(name_or_file)
    return catalogue.read_circuit(path) if path.is_file() else catalogue.circuit(name_or_file)


def load_model(name: str) -> LoadedModel:
    """The model; standard error says how many words its tokenizer keeps out of the prompts."""
    from backend import loading

    loaded = loading.load_model(name)
    say_what_is_left_out(name, loaded.tokenizer)
    return loaded


def say_what_is_left_out(model: str, tokenizer: Any) -> None:
    """Say on standard error how many words its tokenizer keeps out of the prompts, if any."""
    from backend.tasks import usable_vocabulary

    if note := usable_vocabulary(tokenizer).note:
        print(f"{model}: {note}", file=sys.stderr)


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
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def shown(what: str) -> Callable[[int, int], None]:
    """A progress that is shown on standard error."""

    def show(done: int, total: int) -> None:
        end = "\n" if done == total else ""
        print(f"\r{what}: {done / total:4.0%}", end=end, file=sys.stderr, flush=True)

    return show
