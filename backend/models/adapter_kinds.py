"""Which adapters the engine can work with, by what their configuration says (no torch).

What acts inside the modules that the engine calls is part of whatever it does with them. What acts
outside, on the prompt or around layers, would silently be left out.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from backend.core.errors import UserError
from backend.models.model_files import ADAPTER_CONFIG, read_object

_OUTSIDE = {
    "PROMPT_TUNING": "prompt tuning",
    "MULTITASK_PROMPT_TUNING": "multitask prompt tuning",
    "P_TUNING": "P-tuning",
    "PREFIX_TUNING": "prefix tuning",
    "CPT": "context-aware prompt tuning",
    "ADAPTION_PROMPT": "LLaMA-Adapter",
}
_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")
"""How LoRA may have begun: in ways that leave the base as it is."""
_ALLOWED = frozenset({
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern",
    "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out", "lora_bias", "modules_to_save",
    "ensure_weight_tying", "init_lora_weights", "eva_config", "r", "lora_alpha", "bias",
})  # fmt: skip
"""Fields of LoRA that may be set to anything; others, only to what switches nothing on."""
_INERT = _ALLOWED | {"inference_mode", "auto_mapping", "megatron_config", "loftq_config"}
_NAMES = ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save")
_PATTERNS = ("rank_pattern", "alpha_pattern")
_PLAIN = re.compile(r"[\w.-]*")
_PATIENCE_S = 3.0
_MATCH_ALL = r"""
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    for name in names:
        re.fullmatch(pattern, name)
        re.match(rf"(^|.*\.)?({pattern})($|\..*)", name)
"""


def adapter_config(adapter: Path) -> dict[str, Any]:
    """The configuration of a LoRA adapter, without what other libraries do with it.

    Raises UserError for every kind of adapter that is not known to act inside the modules that the
    engine calls, by name and with what to do.
    """
    about = read_object(adapter / ADAPTER_CONFIG)
    kind = about.get("peft_type")
    if isinstance(kind, str) and kind in _OUTSIDE:
        raise UserError(_acts_outside(adapter, _OUTSIDE[kind]))
    if kind != "LORA":
        named = f"of the kind {kind[:40]}" if isinstance(kind, str) else "of no named kind"
        raise UserError(
            f"The adapter {adapter} is {named}; LoRA, with rank stabilisation or as DoRA, is what "
            f"the engine is tested with. {_MERGE}"
        )
    if about.get("alora_invocation_tokens"):
        raise UserError(_acts_outside(adapter, "activated LoRA, which acts on some tokens only"))
    if (start := about.get("init_lora_weights")) not in _STARTS:
        raise UserError(
            f"The adapter {adapter} began as “{str(start)[:40]}”, which changes the weights of its "
            f"base. Have it converted to plain LoRA, as PEFT describes, or merged. {_MERGE}"
        )
    for field, value in about.items():
        if field not in _INERT and (value is True or (value and isinstance(value, dict | list))):
            raise UserError(
                f"The adapter {adapter} uses “{field[:40]}”, which the engine is not tested with. "
                f"{_MERGE}"
            )
    return {field: value for field, value in about.items() if field in _ALLOWED} | {
        "init_lora_weights": True,
        "eva_config": None,
        "inference_mode": True,
    }


def check_numbers(adapter: Path, about: Mapping[str, Any], largest: int) -> None:
    """Raise UserError for ranks that the adapter's weights have no room for, and odd scales.

    largest: the largest size that any of its weights has.
    """
    ranks = [about.get("r", 8), *_values(about.get("rank_pattern"))]
    scales = [about.get("lora_alpha", 8), *_values(about.get("alpha_pattern"))]
    if not all(type(rank) is int and 0 < rank <= largest for rank in ranks):
        raise UserError(
            f"{adapter / ADAPTER_CONFIG} gives a rank that its weights do not have. Put the files "
            "there that belong together."
        )
    if not all(type(scale) in (int, float) and math.isfinite(scale) for scale in scales):
        raise UserError(
            f"{adapter / ADAPTER_CONFIG} gives a lora_alpha that is not a number. Put the files "
            "there that belong together."
        )


def check_patterns(adapter: Path, about: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise UserError when its patterns take too long to be compared with these names of modules.

    They are tried in a process of their own: a regular expression can run for ever, and while it
    runs, no other thread does.
    """
    patterns = [
        pattern
        for field in (*_NAMES, *_PATTERNS)
        for pattern in _texts(about.get(field))
        if not _PLAIN.fullmatch(pattern)
    ]
    if not patterns:
        return
    reason = "takes too long"
    try:
        tried = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MATCH_ALL],
            input=json.dumps([patterns, sorted(names)]),
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        if tried.returncode == 0:
            return
        reason = "is not one"
    except subprocess.TimeoutExpired:
        pass
    raise UserError(
        f"{adapter / ADAPTER_CONFIG} says by a regular expression which modules it changes, and "
        f"the expression {reason}: {patterns[0][:60]}. Write a list of modules there instead, such "
        'as ["q_proj", "v_proj"].'
    )


def modules_of(weights: Iterable[str]) -> set[str]:
    """The names of all modules that some weights lie in."""
    steps = [name.split(".") for name in weights]
    return {".".join(each[:n]) for each in steps for n in range(1, len(each))}


_MERGE = (
    "Merge it into its base (`merge_and_unload()`, then `save_pretrained`) and add the result, or "
    "choose another adapter."
)


def _acts_outside(adapter: Path, kind: str) -> str:
    return (
        f"The adapter {adapter} is {kind}: it acts outside the modules that are patched here, so "
        "that every number would be the bare base's. Choose an adapter that acts on weights, such "
        "as LoRA, or a model that was fine-tuned as a whole."
    )


def _values(table: Any) -> list[Any]:
    return list(table.values()) if isinstance(table, dict) else []


def _texts(names: Any) -> list[str]:
    if isinstance(names, str):
        return [names]
    return [name for name in names or () if isinstance(name, str)] if _is_many(names) else []


def _is_many(names: Any) -> bool:
    return isinstance(names, list | dict)
