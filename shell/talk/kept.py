"""What a step of a talk keeps of a page beside the view: the choices made there, checked."""

from __future__ import annotations

from collections.abc import Container, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend import published
from backend.core.components import Component
from backend.core.errors import UserError
from backend.core.heads import Head, Site
from backend.core.metrics import Ablation, Score, Tokens
from backend.core.serialize import from_json, to_json
from backend.methods.attention_knockout import MOST_LAYERS
from backend.methods.dcm import Among
from backend.methods.pruning import Growth
from backend.methods.stage import NO_TEST
from backend.tasks.prompts import MAX_PROMPTS
from backend.tasks.setting import Mode
from backend.tasks.task import Task
from backend.tasks.written import MAX_CHARACTERS, Written
from shell.attention.opening import SECTIONS
from shell.circuit.edges import MOST_PERCENT
from shell.cmap import transplant
from shell.compare.comparison import KNOCKED_OUT_IN
from shell.discover import search
from shell.discover.discovery import CENTRED, MOST_PROMPTS, RAW
from shell.discover.stages import MOST_KEPT
from shell.function import chosen, patching
from shell.logits import attribution, copying, lens, logits
from shell.paper.sections import SECTIONS as PAPER_SECTIONS
from shell.prompt import beside, editor, switched

_NOT_IN_A_TALK = ("talks", "speaker")
_FOLDER = Path(__file__).parents[2] / "pages"
PAGES = tuple(sorted({path.stem for path in _FOLDER.glob("*.py")} - {*_NOT_IN_A_TALK}))
"""Pages that a step can show."""

_Names = tuple[str, ...]


@dataclass(frozen=True)
class _Choice:
    """What a choice is: its type, and what its value, or each of several, can be.

    starts: it begins anew when the sidebar's model changes (`shell.frame.choices.is_start`).
    """

    kind: Any
    among: Container[Any] | None = None
    starts: bool = False


@dataclass(frozen=True)
class _Between:
    """Numbers between two, both included."""

    low: float
    high: float

    def __contains__(self, value: Any) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class _SitesAt:
    """Heads at these tokens."""

    positions: Container[str]

    def __contains__(self, site: Any) -> bool:
        return site.position in self.positions


def check(page: str, task: Task, data: Mapping[str, Any], where: str) -> None:
    """Raises UserError, naming it, for a choice that the page cannot have."""
    for name, value in data.items():
        _value(page, task, name, value, where)


def read(page: str, task: Task, data: Mapping[str, Any]) -> dict[str, Any]:
    """The choices as the session has them; raises UserError for one that the page cannot have."""
    return {name: _value(page, task, name, value, "choices") for name, value in data.items()}


def written(page: str, task: Task, session: MutableMapping[Any, Any]) -> dict[str, Any]:
    """The choices made on a page as JSON has them."""
    known = _choices(page, task)
    return {name: to_json(session[name]) for name in known if name in session}


def starting(page: str, task: Task) -> list[str]:
    """Choices that begin anew with another model."""
    return [name for name, each in _choices(page, task).items() if each.starts]


def _value(page: str, task: Task, name: str, data: Any, where: str) -> Any:
    known = _choices(page, task).get(name)
    if known is None:
        raise UserError(f"“{where}: {name[:40]}” is not a choice of the page {page}. Leave it out.")
    try:
        value = from_json(known.kind, data)
    except UserError as error:
        raise _refusal(where, name) from error
    several = isinstance(value, tuple) and known.kind is not Head
    each = value if several else (value,)
    if known.among is not None and not all(item in known.among for item in each):
        raise _refusal(where, name)
    if any(isinstance(item, str) and (len(item) > 500 or not item.isprintable()) for item in each):
        raise _refusal(where, name)
    if isinstance(value, Written) and max(len(value.text), len(value.marks)) > MAX_CHARACTERS:
        raise _refusal(where, name)
    return [*value] if several else value


def _refusal(where: str, name: str) -> UserError:
    return UserError(f"“{where}.{name}” is nothing that can be chosen there. Mend it in the file.")


def _choices(page: str, task: Task) -> dict[str, _Choice]:
    tests = [each.name for each in task.desiderata]
    match page:
        case "circuit":
            return {"weakest_edge": _Choice(int, range(MOST_PERCENT + 1))}
        case "prompt":
            return {
                editor.written_key(editor.FIRST, task): _Choice(Written),
                editor.written_key(editor.SECOND, task): _Choice(Written),
                switched.MODE: _Choice(Mode, switched.MODES),
                beside.MODELS: _Choice(_Names, starts=True),
            }
        case "compare":
            return {
                "compared": _Choice(_Names, starts=True),
                "compared_ablation": _Choice(Ablation),
                "knocked_out_in": _Choice(str, KNOCKED_OUT_IN),
            }
        case "cmap":
            return {
                "target": _Choice(str, starts=True),
                "part": _Choice(Component),
                "ticked_groups": _Choice(_Names, task.keys),
                transplant.pinned_key(task): _Choice(
                    tuple[Site, ...], _SitesAt(task.position_names)
                ),
            }
        case "discover":
            return {
                "discover_n": _Choice(int, range(5, MOST_PROMPTS + 1)),
                "discover_score": _Choice(Score),
                "discover_ranking": _Choice(str, (RAW, CENTRED)),
                "discover_fdr": _Choice(float, _Between(0.001, NO_TEST)),
                "search_growth": _Choice(Growth),
                "search_most": _Choice(int, range(1, search.MOST + 1)),
                "search_ablation": _Choice(Ablation),
                "search_tokens": _Choice(Tokens),
                "search_distance": _Choice(float, _Between(0, 1)),
            } | {f"discover_keep_{key}": _Choice(int, range(1, MOST_KEPT + 1)) for key in task.keys}
        case "function":
            return {
                patching.MODELS: _Choice(_Names, starts=True),
                chosen.tests_key(task): _Choice(_Names, tests),
                chosen.test_key(task): _Choice(str, tests),
                chosen.group_key(task): _Choice(str, task.keys),
                "dcm_model": _Choice(str),
                "dcm_n": _Choice(int, range(20, MAX_PROMPTS + 1)),
                "dcm_among": _Choice(Among),
                "dcm_penalty": _Choice(float, _Between(0, 100)),
                "dcm_sweep": _Choice(bool),
                "dcm_rate": _Choice(float, _Between(0.001, 10)),
                "dcm_epochs": _Choice(int, range(1, 101)),
                "dcm_batch": _Choice(int, range(1, 10_001)),
                "dcm_training": _Choice(int, range(1, 99)),
                "dcm_validation": _Choice(int, range(1, 99)),
            }
        case "attention":
            return {
                "attention_shown": _Choice(str, SECTIONS),
                "attention_head": _Choice(Head),
                "attention_from": _Choice(str, task.position_names),
                "attention_token": _Choice(int | None, range(10_000)),
                "attention_beside": _Choice(str),
                "attention_switched": _Choice(bool),
                "knockout_window": _Choice(int, range(MOST_LAYERS + 1)),
                "knockout_papers": _Choice(bool),
                "attended": _Choice(_Names, starts=True),
            }
        case "logits":
            return {
                "logits_models": _Choice(_Names, starts=True),
                "logits_read": _Choice(str, logits.READINGS),
                "attribution_shown": _Choice(str, (attribution.MEAN, attribution.ONE)),
                "lens_measure": _Choice(str, lens.MEASURES),
                "copying_score": _Choice(str, (copying.COPIES, copying.OPPOSES)),
            }
        case "paper":
            return {
                "paper_model": _Choice(str, published.MODELS),
                "paper_section": _Choice(str, PAPER_SECTIONS),
            }
    return {}
