"""The Models page's pieces: what is known, what is loaded where, and what fits together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import combinations
from pathlib import Path

import streamlit as st

from backend.core.devices import Device, cpu, gpus
from backend.core.errors import UserError
from backend.core.placement import AUTO, CPU, SPREAD, Dtype, Placement
from backend.core.progress import Report
from backend.core.read_only import check_allowed, is_read_only
from backend.models import catalogue, elsewhere, loaded_models, prepared, registry
from backend.models.adding import add_model, is_gguf
from backend.models.gguf_folders import MADE, origin_of
from backend.models.model_config import Blueprint, blueprint, misfit
from backend.models.model_files import n_parameters
from backend.models.registry import ADAPTERS, BUNDLED, Entry, Kind
from backend.models.weights import cached, trouble
from backend.studies import jobs, remote
from backend.tasks.setting import Setting
from shell.frame import state, waiting
from shell.frame.notes import show_noise
from shell.frame.words import unmarked

_TITLES = {
    Kind.bundled: "Bundled",
    Kind.added: "Yours",
    Kind.remote: "On the cluster, and not here",
    Kind.typed: "Typed elsewhere",
    Kind.paper: "The paper’s",
}
_WIDTHS = (5, 1)
_FORM = ("new_name", "new_source", "new_adapter", "new_finetuned_on")


def choose_placement() -> Placement:
    """Where the next model is loaded, and in which numbers."""
    found = _gpus()
    offered = [AUTO, CPU, *(gpu.device for gpu in found), *([SPREAD] if len(found) > 1 else [])]
    state.remember(new_device=AUTO, new_dtype=Dtype.float32, new_tf32=False)
    st.markdown("#### Load onto")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.selectbox(
            "Device",
            offered,
            format_func=lambda device: _DEVICES.get(device, device),
            key="new_device",
            persist_state="session",
            help="Auto is the first GPU, or the CPU when there is none.",
        )
        st.toggle(
            "TF32",
            key="new_tf32",
            persist_state="session",
            disabled=not found,
            help="Lets a GPU multiply float32 faster and less exactly. It holds for all models.",
        )
    st.segmented_control(
        "Numbers",
        list(Dtype),
        format_func=lambda dtype: dtype.name,
        key="new_dtype",
        required=True,
        persist_state="session",
        help="float32 for scores. The others need half the memory; when a model is loaded in one, "
        "a short test tells whether its rounding hides the scores.",
    )
    at = st.session_state
    return Placement(at["new_device"], at["new_dtype"], at["new_tf32"])


@st.fragment(run_every=2.0)
def show_memory() -> None:
    """What is free now; the whole page is drawn again once GPUs are found."""
    found = _gpus()
    if len(found) != st.session_state.setdefault("n_gpus", 0):
        st.session_state["n_gpus"] = len(found)
        st.rerun()
    st.markdown("#### Free memory")
    for device in (cpu(), *found):
        st.progress(
            1 - device.free / device.total,
            f"{unmarked(device.name)}: {_size(device.free)} of {_size(device.total)} free",
        )
    try:
        kept = f"{prepared.used() / 1e9:.1f} of {prepared.budget() / 1e9:.1f} GB"
    except UserError as error:
        st.warning(unmarked(error))
    else:
        st.caption(
            f"Prepared prompts: {kept}",
            help="What the Circuit page keeps of its prompts and of clicks, for all tabs together. "
            "What was used least recently goes first.",
        )
    if not found and not _devices_job().future.done():
        st.caption("Looking for GPUs …")


def offer_to_add() -> None:
    """A form for a model of the user's own."""
    with st.form("add_model", border=True):
        st.markdown("#### Add a model")
        st.text_input("Name", key="new_name", placeholder="my-llama")
        st.text_input(
            "Hub name, folder or GGUF file",
            key="new_source",
            placeholder="owner/name or /path/to/folder",
            help="Safetensors are read as they are; a GGUF file is made float32 safetensors once. "
            "No code that comes with a model is run.",
        )
        st.text_input(
            "PEFT adapter on it (optional)",
            key="new_adapter",
            placeholder="owner/name or /path/to/folder",
        )
        st.text_input("Fine-tuned on (optional)", key="new_finetuned_on")
        st.form_submit_button("Add", on_click=_add)
        if complaint := st.session_state.get("add_complaint"):
            st.error(unmarked(complaint))


def show_loading() -> None:
    """Models on their way, those that could not be loaded, and what is wrong in the user's file."""
    if complaint := registry.added().complaint:
        st.warning(unmarked(complaint))
    for name, job in list(_loads().items()):
        if job.future.done() and not job.future.exception():
            del _loads()[name]
        else:
            waiting.follow(job)


def show_models(placement: Placement) -> None:
    """Every known model in a row: what it is, where it is, and a button."""
    loaded = loaded_models.loaded()
    known = registry.models()
    typed = [Entry(name, name, name) for name in loaded if name not in known]
    everything = (*known.values(), *typed)
    with st.container(key="models", gap=None):
        for kind, title in _TITLES.items():
            entries = [entry for entry in everything if entry.kind is kind]
            if entries:
                st.html(f'<div class="kind">{title}</div>')
            for entry in entries:
                _show_model(entry, placement)


def show_pairs() -> None:
    """Which models can be compared head by head, and why others cannot."""
    found = {entry.label: blueprint(entry) for entry in registry.models().values()}
    known = {label: each for label, each in found.items() if each}
    alike = groups_that_fit(known)
    st.markdown(
        "#### Can be compared",
        help="CMAP needs models with as many layers, heads and numbers in a head, and the same "
        "vocabulary. Told by their configurations alone; keys and values also need as many "
        "key-value heads.",
    )
    for labels in alike:
        shape, words = known[labels[0]].shape, known[labels[0]].n_words
        st.markdown(
            f"- **{_joined(labels)}**{' with each other' if len(labels) > 1 else ' with no other'}:"
            f" {shape.n_layers} layers, {shape.n_heads} heads, {shape.d_head} numbers in a head, "
            f"{words:,} words."
        )
    for one, other in combinations(alike, 2):
        reason = misfit(known[one[0]], known[other[0]], (one[0], other[0]))
        st.markdown(f"- {_first(one)} not with {_first(other)}: {unmarked(str(reason))}")
    unknown = [label for label, each in found.items() if not each]
    if unknown:
        st.caption(f"Not known until their files are here: {_joined(unknown)}.")


def groups_that_fit(known: dict[str, Blueprint]) -> list[list[str]]:
    """Models by label, in groups within which every pair can be compared."""
    groups: list[list[str]] = []
    for label, each in known.items():
        for group in groups:
            if all(misfit(known[other], each, (other, label)) is None for other in group):
                group.append(label)
                break
        else:
            groups.append([label])
    return groups


def _show_model(entry: Entry, placement: Placement) -> None:
    name = entry.name
    if entry.kind is Kind.remote:
        _show_remote(entry)
        return
    is_loaded, is_loading = name in loaded_models.loaded(), name in _loads() and _is_running(name)
    places = " + ".join(_short(place) for place in (entry.source, entry.adapter) if place)
    if origin := origin_of(entry.source):
        places += f" · {origin}"
    if is_loaded:
        where = _loaded_where(name)
    else:
        where = ("Loading …", "") if is_loading else _on_disk(entry, placement)
    row, act = st.columns(_WIDTHS, vertical_alignment="center", gap="small")
    row.html(_row([(entry.label, places), ("", entry.finetuned_on), where], is_loaded))
    with act, st.container(horizontal=True, gap="small"):
        if is_read_only():
            pass
        elif is_loaded:
            st.button("Unload", key=f"unload_{name}", on_click=unload, args=(name,))
        else:
            st.button(
                "Load",
                key=f"load_{name}",
                disabled=is_loading,
                on_click=_load,
                args=(name, placement),
            )
        if entry.kind is Kind.added and not is_read_only():
            st.button(
                "✕",
                key=f"remove_{name}",
                help=f"Forget {unmarked(entry.label)}; its files stay",
                on_click=_remove,
                args=(name,),
            )
    show_noise(name, st.session_state["task"])


def _show_remote(entry: Entry) -> None:
    """A model that a page loads there when it asks it something."""
    is_loaded = elsewhere.loaded(entry.name) is not None
    places = " + ".join(str(place) for place in (entry.source, entry.adapter) if place)
    row, act = st.columns(_WIDTHS, vertical_alignment="center", gap="small")
    where = ("● Loaded", "there") if is_loaded else ("", "loaded there when a page asks")
    row.html(_row([(entry.label, places), ("", entry.finetuned_on), where], is_loaded))
    if is_loaded and not is_read_only():
        act.button("Unload", key=f"unload_{entry.name}", on_click=unload, args=(entry.name,))


def _row(cells: Iterable[tuple[str, str]], is_loaded: bool) -> str:
    """The cells of a row, each with something large and something small."""
    return (
        f'<div class="model{" loaded" if is_loaded else ""}">'
        + "".join(
            f"<div><b>{escape(large)}</b><small>{escape(small)}</small></div>"
            for large, small in cells
        )
        + "</div>"
    )


def _loaded_where(name: str) -> tuple[str, str]:
    model = loaded_models.loaded()[name]
    size, own = loaded_models.bytes_of(name)
    shared = "" if own == size else f", {_size(size - own)} of it shared"
    about = f"{model.placement.device} · {model.placement.dtype.name} · {_size(size)}{shared}"
    return "● Loaded", f"{about} · {model.adapter}" if model.adapter else about


def _on_disk(entry: Entry, placement: Placement) -> tuple[str, str]:
    places = [place for place in (entry.source, entry.adapter) if place is not None]
    if wrong := next((said for place in places if (said := trouble(place))), None):
        # What to do about it, "Load" tells; here it would make a tall row of its column.
        return "Cannot be loaded", wrong.split(". ", 1)[0]
    folders = [cached(place) for place in places]
    if None in folders:
        return "", "not on this computer"
    n = sum(n_parameters(folder) for folder in folders if folder)
    size = _size(n * placement.dtype.n_bytes)
    return "", f"on this computer: {_count(n)} parameters, {size} in {placement.dtype.name}"


def _load(name: str, placement: Placement) -> None:
    check_allowed("To load a model")
    _tidy()
    key = "load", name, placement
    jobs.forget(key)
    _loads()[name] = jobs.job(
        key, lambda report: _loading(name, placement, report), kind=jobs.QUICK
    )


def _loading(name: str, placement: Placement, report: Report) -> Iterator[str]:
    label = catalogue.label(name)
    report(f"{label}: starting the engine", 0.0)
    import backend.models.loading  # noqa: F401  # takes seconds, which the line above explains

    loaded_models.load(
        name, placement, lambda stage, share: report(f"{label}: {stage.lower()}", share)
    )
    yield name


def unload(name: str) -> None:
    """Let go of a model, and of what was prepared with it for the Circuit page."""
    check_allowed("To unload a model")
    _tidy()
    jobs.forget_all(lambda key: isinstance(key, Setting) and key.model == name)
    try:
        remote.unload(name) if remote.is_remote(name) else loaded_models.unload(name)
    except UserError as error:
        st.session_state["add_complaint"] = str(error)


def _remove(name: str) -> None:
    unload(name)
    try:
        registry.remove(name)
    except UserError as error:
        st.session_state["add_complaint"] = str(error)
    if st.session_state["model"] == name:
        st.session_state["model"] = catalogue.bundled_models()[0]


def _add() -> None:
    _tidy()
    at = st.session_state
    name, source, adapter, finetuned_on = (at[field].strip() for field in _FORM)
    try:
        if is_gguf(source):
            registry.check_is_free(name)
            _add_gguf(name, source, adapter, finetuned_on)
        else:
            registry.add(name, source, adapter, finetuned_on)
    except UserError as error:
        at["add_complaint"] = str(error)
    else:
        at.update(dict.fromkeys(_FORM, ""))


def _add_gguf(name: str, *about: str) -> None:
    """Read a GGUF file in a job: it takes longer than a click may."""

    def work(report: Report) -> Iterator[str]:
        yield add_model(
            name, *about, report=lambda what, share: report(f"{name}: {what.lower()}", share)
        ).name

    key = "add", name, *about
    jobs.forget(key)
    _loads()[name] = jobs.job(key, work, kind=jobs.QUICK)


def _tidy() -> None:
    """Forget messages about what was done before."""
    st.session_state["add_complaint"] = None
    for name in [name for name, job in _loads().items() if job.future.done()]:
        del _loads()[name]


def _loads() -> dict[str, jobs.Job]:
    """This tab's latest load of each model."""
    loads: dict[str, jobs.Job] = st.session_state.setdefault("loads", {})
    return loads


def _is_running(name: str) -> bool:
    return not _loads()[name].future.done()


def _devices_job() -> jobs.Job:
    return jobs.job("devices", _look_for_gpus, kind=jobs.QUICK)


def _look_for_gpus(report: Report) -> Iterator[bool]:
    report("Looking for GPUs", 0.1)
    yield bool(gpus())


def _gpus() -> tuple[Device, ...]:
    """The GPUs; none while that is not known, because torch is not there yet."""
    asked = _devices_job()
    return gpus() if asked.parts and asked.parts[0] else ()


_DEVICES = {AUTO: "auto", CPU: "CPU", SPREAD: "spread over all GPUs"}


def _short(place: Path | str) -> str:
    """A place in few letters: what was bundled or made here by its folder alone."""
    is_ours = isinstance(place, Path) and place.parent in (BUNDLED, ADAPTERS, MADE)
    return Path(place).name if is_ours else str(place)


def _size(n_bytes: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"


def _count(number: int) -> str:
    for unit, scale in (("B", 1e9), ("M", 1e6)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number / 1e3:.0f} k"


def _first(labels: list[str]) -> str:
    return unmarked(labels[0]) + (f" and {len(labels) - 1} more" if len(labels) > 1 else "")


def _joined(words: list[str]) -> str:
    return ", ".join(map(unmarked, words))
