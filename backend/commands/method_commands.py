"""A subcommand for each method, made of what its file says of it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from functools import partial
from typing import Any

from backend.commands.parts import (
    add_circuit,
    add_command,
    add_models,
    add_placement,
    add_prompts,
    measure,
    prompts_of,
    read_circuit,
)
from backend.methods.method import Command, Method
from backend.methods.registry import METHODS
from backend.methods.requests import CHOICES, Request
from backend.studies import studies


def add_to(commands: Any) -> None:
    """Add a subcommand for each method that can be asked for by itself."""
    for method in METHODS.values():
        if method.command:
            _add(commands, method, method.command)


def _add(commands: Any, method: Method, command: Command) -> None:
    run = partial(_run, method, command)
    parser = add_command(commands, method.name, run, command.purpose, command.example)
    asked = [each.name for each in fields(method.request)]
    for name in asked:
        if name == "models":
            add_models(parser)
        elif name in ("model", "source", "target"):
            parser.add_argument(name, metavar=name.upper())
    command.arguments(parser)
    for name in asked:
        if name in CHOICES:
            add_choice(parser, name, CHOICES[name])
    if "circuit" in asked:
        add_circuit(parser)
    add_prompts(parser, command.n_prompts)
    add_placement(parser)


def add_choice(parser: argparse.ArgumentParser, name: str, words: Mapping[Any, str]) -> None:
    """One of several, in words, the paper's first."""
    choices = [_shown(choice) for choice in words]
    parser.add_argument(
        f"--{name}",
        choices=choices,
        default=choices[0],
        help=f"{', '.join(words.values())} (default: {choices[0]}, as in the paper)",
    )


def choice_of(options: argparse.Namespace, name: str, words: Mapping[Any, str]) -> Any:
    """Which one is asked for."""
    chosen = getattr(options, name)
    return next(each for each in words if _shown(each) == chosen)


def _shown(choice: Enum) -> str:
    return choice.name.replace("_", "-")


def _run(method: Method, command: Command, options: argparse.Namespace) -> Any:
    request = _request(method, command, options)
    parts = measure(request, command.n_parts(options))
    return {**studies.as_data(request, parts), **command.beside(options, request, parts)}


def _request(method: Method, command: Command, options: argparse.Namespace) -> Request:
    asked: dict[str, Any] = {}
    for name in (each.name for each in fields(method.request)):
        if name == "circuit":
            asked[name] = read_circuit(options)
        elif name == "prompts":
            asked[name] = prompts_of(options)
        elif name == "models":
            asked[name] = tuple(options.models)
        elif name in CHOICES:
            asked[name] = choice_of(options, name, CHOICES[name])
        elif name in options:
            asked[name] = getattr(options, name)
    asked |= command.fields(options, asked.get("circuit")).items()
    request: Request = method.request(**asked)
    return request
