"""The Results page's pieces: the list, one result, two side by side, files, deleting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd
import streamlit as st

from backend.core.errors import UserError
from backend.core.read_only import is_read_only
from backend.methods.cmap import CmapRequest, SetRequest
from backend.methods.registry import METHODS, settings_of
from backend.methods.requests import circuit_of
from backend.methods.rows import figures
from backend.studies import store, studies
from shell.frame import places
from shell.frame.studies import local_time
from shell.frame.take_home import Origin, frame_files, origin_of, show_control
from shell.frame.words import unmarked

_FIGURE_COLUMNS: dict[str, Any] = {
    "item": "of",
    "figure": "figure",
    "value": st.column_config.NumberColumn("value", format="%.3f"),
    "low": st.column_config.NumberColumn("95 % from", format="%.3f"),
    "high": st.column_config.NumberColumn("to", format="%.3f"),
    "n": "n",
}
_MOST_LEFT = 10
_EXPLANATION = (
    "Whatever the pages and the command line measure is kept in `cache/local/results`, and is "
    "found again when the same is asked. Files from another machine can be copied there."
)


@dataclass(frozen=True)
class Result:
    """An entry of the store, read; `flaw` says why it cannot be shown, if so."""

    entry: store.Entry
    stored: studies.Stored | None
    flaw: str = ""


def show_title() -> None:
    """What this page is, and what could not be trusted."""
    st.markdown("#### Results", help=_EXPLANATION)
    if aside := store.set_aside():
        st.warning(
            f"Damaged results were moved to {unmarked(store.DAMAGED)}, and are not used: "
            f"{', '.join(f'“{unmarked(name)}”' for name in aside)}. They are computed again when "
            "they are asked for. You can delete these files."
        )
    if left := store.left():
        lines = [f"- “{unmarked(path)}”: {unmarked(why)}." for path, why in left.items()]
        if len(lines) > _MOST_LEFT:
            lines[_MOST_LEFT:] = [f"- and {len(lines) - _MOST_LEFT} more."]
        st.warning(
            "Files among the results that are not used, and were left as they are. Mend them, or "
            "put them elsewhere:\n\n" + "\n".join(lines)
        )


def choose(found: Sequence[store.Entry]) -> list[Result]:
    """The list; the results that are ticked in it."""
    if not found:
        st.info(
            "Nothing is measured yet. Press Run on the Compare, CMAP, Discover or Function page."
        )
        return []
    results = [_read(entry) for entry in found]
    event = st.dataframe(
        pd.DataFrame([_row(result) for result in results]),
        hide_index=True,
        key=f"results_{st.session_state.get('results_epoch', 0)}",
        on_select="rerun",
        selection_mode="multi-row",
        height=35 * (min(len(results), 12) + 1) + 3,
        column_config={
            "date": st.column_config.DatetimeColumn("date", format="YYYY-MM-DD, HH:mm"),
            "age": st.column_config.DatetimeColumn("age", format="distance", width=105),
            "size": st.column_config.NumberColumn("size", format="bytes"),
            "seconds": st.column_config.NumberColumn("took", format="%.0f s"),
            "method": st.column_config.TextColumn("method", width=125),
            "task": st.column_config.TextColumn("task", width=100),
            "models": st.column_config.TextColumn("models", width=130),
            "settings": st.column_config.TextColumn("settings", width=85),
            "shipped": st.column_config.CheckboxColumn("shipped", help="Came with this tool."),
        },
    )
    count = "1 result" if len(found) == 1 else f"{len(found)} results"
    st.caption(
        f"{count}, {_size(sum(entry.n_bytes for entry in found))}. Tick one to look at it, or two "
        "of the same method to compare them."
    )
    return [results[place] for place in event.selection.rows if place < len(results)]


def show_actions(chosen: Sequence[Result]) -> None:
    """What can be done with the results that are ticked."""
    opening = None
    with st.container(horizontal=True, vertical_alignment="center"):
        if len(chosen) == 1 and (stored := chosen[0].stored):
            reason = places.obstacle(stored)
            page = places.page_of(stored.request)
            if page and st.button(
                f"Open on the {places.title_of(page)} page",
                type="primary",
                disabled=bool(reason),
                help=reason,
                on_click=places.open_stored,
                args=(stored,),
            ):
                opening = page
        if chosen:
            _show_downloads(chosen)
            _show_deleting(chosen)
    if complaint := st.session_state.pop("results_complaint", None):
        st.error(unmarked(complaint))
    if opening:
        st.switch_page(opening)


def show_one(result: Result) -> None:
    """Where it was measured and on what, and its figures."""
    header = result.entry.header
    if not result.stored:
        st.error(unmarked(result.flaw))
        return
    request = result.stored.request
    marks = ", ".join(
        f"{unmarked(mark.label)} (weights {_short(mark.fingerprint.weights)}"
        + (f", adapter {_short(mark.fingerprint.adapter)}" if mark.fingerprint.adapter else "")
        + f", {unmarked(mark.fingerprint.precision)})"
        for mark in header.models
    )
    versions = ", ".join(unmarked(f"{name} {number}") for name, number in header.versions.items())
    st.markdown(f"##### {unmarked(_title(result))}")
    st.caption(
        f"{unmarked(request.prompts.task.title)}, {request.prompts}. {marks}. "
        f"{local_time(header.date)}, {header.seconds:.0f} s; engine {unmarked(header.engine)}, "
        f"{versions}."
    )
    if not result.entry.is_complete:
        st.info(
            f"{len(result.entry.parts)} of {header.n_parts} parts are finished. Open it and press "
            "Run, or use the same command again, to go on from there."
        )
    frame = _frame(result)
    st.dataframe(frame, hide_index=True, column_config=_FIGURE_COLUMNS)
    show_control("result", lambda: frame_files(frame, origin_of("results", request), header.method))


def show_two(first: Result, second: Result) -> None:
    """Both figures of each kind, and their difference."""
    if first.entry.header.method != second.entry.header.method:
        st.info("These are results of two methods. Tick two of the same method to compare them.")
        return
    if not first.stored or not second.stored:
        st.error(unmarked(first.flaw or second.flaw))
        return
    for name, result in (("first", first), ("second", second)):
        st.markdown(
            f"**{name.capitalize()}**: {unmarked(_title(result))}, "
            f"{result.stored.request.prompts}, "  # type: ignore[union-attr]
            f"{local_time(result.entry.header.date)}"
        )
    frame = side_by_side(_frame(first), _frame(second))
    if frame.empty:
        st.info("They have no figure in common. Tick two about the same models or sets of heads.")
        return
    number = st.column_config.NumberColumn(format="%.3f")
    st.dataframe(
        frame,
        hide_index=True,
        column_config={"item": "of"}
        | dict.fromkeys(("first", "second"), number)
        | {"difference": st.column_config.NumberColumn("second − first", format="%+.3f")},
    )
    method = first.entry.header.method
    show_control("two_results", lambda: frame_files(frame, Origin("results"), f"two {method}"))
    st.caption(
        "The difference of two results has no interval, because their prompts may not be the same. "
        "On the same prompts, the Compare page has it."
    )


def side_by_side(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """The figures that both have, with their intervals, and second − first."""
    both = first.merge(second, on=["item", "figure"], suffixes=("_1", "_2"), sort=False)
    return pd.DataFrame(
        {
            "item": both["item"],
            "figure": both["figure"],
            "first": both["value_1"],
            "first, 95 %": _intervals(both, "1"),
            "second": both["value_2"],
            "second, 95 %": _intervals(both, "2"),
            "difference": both["value_2"] - both["value_1"],
        }
    )


def as_csv(chosen: Sequence[Result]) -> str:
    """A row for each figure, with what it was measured on."""
    frames = []
    for result in chosen:
        if result.stored:
            request, header = result.stored.request, result.entry.header
            heads = circuit_of(request)
            about: dict[str, Any] = {
                "method": header.method,
                "models": " | ".join(mark.name for mark in header.models),
                "circuit": heads.name if heads else "",
                "settings": settings_of(request),
                "prompts": request.prompts.n,
                "task": request.prompts.task.name,
                **{
                    option.name: value
                    for option, value in zip(
                        request.prompts.task.options, request.prompts.options, strict=True
                    )
                },
                "seed": request.prompts.seed,
                "date": header.date,
                "key": header.key,
            }
            frames.append(_frame(result).assign(**about))
    return pd.concat(frames).to_csv(index=False) if frames else ""


def as_json(chosen: Sequence[Result]) -> str:
    """The files of one result or of several, as any `cache` takes them in."""
    files = [store.as_data(result.entry.header, result.entry.parts) for result in chosen]
    return json.dumps(files[0] if len(files) == 1 else {"results": files})


def _show_downloads(chosen: Sequence[Result]) -> None:
    name = chosen[0].entry.header.key if len(chosen) == 1 else "results"
    st.download_button(
        "JSON", as_json(chosen), f"{name}.json", "application/json", on_click="ignore"
    )
    st.download_button("CSV", as_csv(chosen), f"{name}.csv", "text/csv", on_click="ignore")


def _show_deleting(chosen: Sequence[Result]) -> None:
    if is_read_only():
        return
    mine = [result.entry for result in chosen if not result.entry.is_shipped]
    with st.popover("Delete", disabled=not mine):
        some = "this result" if len(mine) == 1 else f"these {len(mine)} results"
        st.markdown(f"Delete {some} for good? It would have to be computed again.")
        if len(mine) < len(chosen):
            st.caption("What came with this tool stays.")
        st.button("Delete for good", type="primary", on_click=_delete, args=(mine,))


def _delete(entries: Sequence[store.Entry]) -> None:
    try:
        for entry in entries:
            store.delete(entry)
    except UserError as error:
        st.session_state["results_complaint"] = str(error)
    st.session_state["results_epoch"] = st.session_state.get("results_epoch", 0) + 1


def _read(entry: store.Entry) -> Result:
    try:
        return Result(entry, studies.read(entry))
    except UserError as error:
        return Result(entry, None, str(error))


def _row(result: Result) -> dict[str, Any]:
    entry, header = result.entry, result.entry.header
    date = datetime.fromisoformat(header.date)
    request = result.stored.request if result.stored else None
    heads = circuit_of(request) if request else None
    is_old = " (earlier engine)" if header.engine != store.ENGINE else ""
    return {
        "method": _method(header.method) + is_old,
        "task": request.prompts.task.name if request else "",
        "models": _models(result),
        "circuit": f"{heads.name} ({len(heads.members)})" if heads else "",
        "settings": settings_of(request) if request else "cannot be read",
        "prompts": str(request.prompts).replace(" prompts", "") if request else "",
        "parts": f"{len(entry.parts)} of {header.n_parts}",
        "date": date.astimezone().replace(tzinfo=None),
        "age": date,
        "seconds": header.seconds,
        "size": entry.n_bytes,
        "shipped": entry.is_shipped,
    }


def _title(result: Result) -> str:
    request = result.stored.request if result.stored else None
    words = [_method(result.entry.header.method), _models(result)]
    if request:
        heads = circuit_of(request)
        words += [f"circuit “{heads.name}”"] if heads else []
        words += [settings] if (settings := settings_of(request)) else []
    return " · ".join(words)


def _method(name: str) -> str:
    return METHODS[name].label if name in METHODS else name


def _models(result: Result) -> str:
    is_pair = result.stored and isinstance(result.stored.request, CmapRequest | SetRequest)
    return (" → " if is_pair else ", ").join(mark.label for mark in result.entry.header.models)


def _frame(result: Result) -> pd.DataFrame:
    stored = result.stored
    rows = figures(stored.request, stored.parts) if stored else []
    return pd.DataFrame(
        [(item, what, of.value, of.low, of.high, of.n) for item, what, of in rows],
        columns=["item", "figure", "value", "low", "high", "n"],
    )


def _intervals(both: pd.DataFrame, which: str) -> list[str]:
    pairs = zip(both[f"low_{which}"], both[f"high_{which}"], strict=True)
    return [f"{low:.3f} to {high:.3f}" for low, high in pairs]


def _short(digest: str) -> str:
    return unmarked(digest[:8])


def _size(n_bytes: int) -> str:
    if n_bytes < 1000:
        return f"{n_bytes} bytes"
    return f"{n_bytes / 1000:.0f} kB" if n_bytes < 1_000_000 else f"{n_bytes / 1_000_000:.1f} MB"
