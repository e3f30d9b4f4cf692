"""Measure what the bundled models show: `python -m backend.bundled.check [--n 2000] [--json]`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict

import torch

from backend.bundled.claims import Finding, findings, gather
from backend.core.errors import UserError
from backend.models.catalogue import bundled_models, circuit
from backend.models.loading import load_model

LEAST_PROMPTS = 1000


def check(n: int, seed: int) -> list[Finding]:
    """Every claimed number, on `n` prompts drawn with a seed that training did not use."""
    if n < LEAST_PROMPTS:
        raise UserError(
            f"The claims are about {LEAST_PROMPTS} prompts or more, not {n}. Raise --n."
        )
    models = [load_model(name) for name in bundled_models()]
    return list(findings(gather(models, circuit("base"), n, seed)))


def table(found: Sequence[Finding]) -> str:
    """The findings as aligned text, one a line."""
    lines = [f"{'':5} {'measured':>8}  {'95 % interval':16} {'claimed':>16}  {'n':>5}"]
    for each in found:
        m = each.measured
        interval = f"[{m.low:.3f}, {m.high:.3f}]" if m.low != m.high else ""
        lines.append(
            f"{'ok' if each.holds else 'FAILS':5} {m.value:8.3f}  {interval:16} "
            f"{_claimed(each):>16}  {m.n:5}  {each.claim}. {each.what}"
        )
    held = sum(each.holds for each in found)
    return "\n".join([*lines, f"{held} of {len(found)} numbers are as claimed."])


def _claimed(finding: Finding) -> str:
    if math.isinf(finding.low):
        return f"<= {finding.high:.2f}"
    if math.isinf(finding.high):
        return f">= {finding.low:.2f}"
    return f"{finding.low:.2f} to {finding.high:.2f}"


def _as_json(found: Sequence[Finding]) -> str:
    rows = [
        asdict(each)
        | {
            "low": None if math.isinf(each.low) else each.low,
            "high": None if math.isinf(each.high) else each.high,
            "holds": each.holds,
        }
        for each in found
    ]
    return json.dumps(rows, indent=2)


def main() -> None:
    """The command line; exits with 1 when a number is not as claimed."""
    parser = argparse.ArgumentParser(prog="python -m backend.bundled.check", description=__doc__)
    parser.add_argument("--n", type=int, default=2000, help="prompts, at least 1000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        found = check(arguments.n, arguments.seed)
    except UserError as error:
        raise SystemExit(str(error)) from error
    print(_as_json(found) if arguments.json else table(found))
    raise SystemExit(0 if all(each.holds for each in found) else 1)


if __name__ == "__main__":
    main()
