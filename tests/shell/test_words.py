"""Words of others are shown as text, wherever they come from and whichever page shows them."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.models import catalogue, registry
from backend.studies import jobs, store
from backend.tasks.entity_tracking import ENTITY_TRACKING
from shell.frame.words import unmarked
from shell.results import results
from shell.talk import talks
from tests.dashboard import ROOT

HOSTILE = (
    "![p](http://evil.test/p.png) [l](http://evil.test/l) http://evil.test/a www.evil.test/b "
    "me@evil.test <img src=http://evil.test/i.png> :material/home: :red[r] $x^2$ **b** `c`"
)
AS_FILE = "![p](www.evil.test) :red[r]"
WHOLE = catalogue.circuit("base")
FEW = [(key, WHOLE.heads(key)[0]) for key in ENTITY_TRACKING.keys]
METHODS = ("compare", "cmap", "minimality", "completeness", "functions", "dcm")


def plant(local: Path) -> None:
    """Models, circuits and files with hostile names and words, as others could leave them here."""
    source = json.dumps(str(catalogue.BUNDLED / "base"))
    (local / "models.toml").write_text(
        f"[hostile]\nsource = {source}\nlabel = {json.dumps(HOSTILE)}\n"
        f"finetuned_on = {json.dumps(HOSTILE)}\n\n[wrong]\n{json.dumps(HOSTILE)} = 1\nsource = 1\n"
    )
    circuits, damaged = local / "circuits", local / "damaged"
    circuits.mkdir(exist_ok=True)
    damaged.mkdir(exist_ok=True)
    groups = {key: [list(head)] for key, head in FEW}
    plant_talk(local / "talks")
    for name, data in {
        "hostile": {"name": HOSTILE, "groups": groups},
        AS_FILE: {"name": HOSTILE, "groups": groups},
        "wrong": {"name": HOSTILE, "groups": {"A": [HOSTILE]}},
    }.items():
        (circuits / f"{name}.json").write_text(json.dumps(data))
    (damaged / f"{AS_FILE}.json").write_text("{}")


def plant_talk(folder: Path) -> None:
    step = {"title": HOSTILE[:100], "note": HOSTILE, "view": {"model": HOSTILE}}
    talk = {"format": 1, "title": HOSTILE[:100], "steps": [step], "needs": HOSTILE}
    folder.mkdir(exist_ok=True)
    (folder / "hostile.json").write_text(json.dumps(talk))
    (folder / f"{AS_FILE}.json").write_text("{}")


TASK = "entity-tracking"
"""The paper's: its page shows results of no other."""


def plant_results(shipped: Path, local: Path) -> None:
    """A result of each method under hostile names, with words that this tool would not write."""
    (local / "results").mkdir()
    for method in METHODS:
        stored = (json.loads(path.read_text()) for path in sorted(shipped.glob(f"{method}-*.json")))
        data = next(each for each in stored if each["header"]["request"]["prompts"]["task"] == TASK)
        header = data["header"]
        header["versions"] = {HOSTILE: HOSTILE}
        header["request"]["circuit"]["name"] = HOSTILE
        for mark in header["models"]:
            mark["label"] = HOSTILE
        content = {"header": header, "parts": data["parts"]}
        written = {"format": store.FORMAT, **content, "sha256": store._checksum(content)}
        (local / "results" / f"{header['key']}.json").write_text(json.dumps(written))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is made here, full of it."""
    local = tmp_path_factory.mktemp("hostile")
    plant(local)
    plant_results(ROOT / "cache" / "shipped", local)
    return local


@pytest.fixture
def here(planted: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process uses that folder."""
    monkeypatch.setattr(registry, "ADDED", planted / "models.toml")
    shutil.copytree(planted / "results", store.RESULTS)
    monkeypatch.setattr(store, "DAMAGED", planted / "damaged")
    monkeypatch.setattr(catalogue, "ADDED_CIRCUITS", planted / "circuits")
    monkeypatch.setattr(talks, "ADDED", planted / "talks")
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())


_PLAIN = {
    "Text", "Html", "ArrowVegaLiteChart", "Dataframe", "Arrow", "BidiComponent", "DownloadButton",
}  # fmt: skip
_PLAIN_VALUES = {"Selectbox", "MultiSelect", "TextInput", "TextArea", "NumberInput"}
"""Of these, only label and help are read as Markdown."""


def marked(node: Any) -> Iterator[str]:
    """Every text of a page that is read as Markdown."""
    proto = getattr(node, "proto", None)
    if proto is not None and proto.DESCRIPTOR.name not in _PLAIN:
        yield from _texts(proto)
    for child in getattr(node, "children", {}).values():
        yield from marked(child)


def _texts(message: Any) -> Iterator[str]:
    is_plain = message.DESCRIPTOR.name in _PLAIN_VALUES
    for field, value in message.ListFields():
        if field.name in ("id", "key") or (is_plain and field.name not in ("label", "help")):
            continue
        for each in value if field.is_repeated else [value]:
            if isinstance(each, str):
                yield each
            elif hasattr(each, "ListFields") and each.DESCRIPTOR.name not in _PLAIN:
                yield from _texts(each)


def as_text(test: AppTest) -> None:
    assert not test.exception
    texts = list(marked(test._tree))
    assert texts
    for text in texts:
        for word in (HOSTILE, AS_FILE, "](www.", ":red[r]", "**b**", "http://evil"):
            assert word not in text


def page(name: str, section: str = "Circuit", **query: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.switch_page(f"pages/{name}.py")
    test.query_params.update({"n": "50", "boxes": "3"} | query)
    test.session_state["paper_section"] = section
    test.session_state["talk_chosen"] = "hostile"
    if query.get("model") == HOSTILE:
        test.session_state["compared"] = test.session_state["logits_models"] = [HOSTILE]
    return test.run()


def ended() -> None:
    for job in [*jobs._jobs.values()]:
        job.future.exception(60)


OURS = {"model": "hostile", "circuit": "hostile"}


@pytest.mark.parametrize(
    "name",
    [
        "circuit", "compare", "cmap", "discover", "function", "attention", "logits", "models",
        "results", "talks",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "query",
    [
        OURS,
        {"model": "base", "circuit": "wrong"},
        {"model": HOSTILE, "circuit": AS_FILE, "source": HOSTILE},
        {"model": "hostile", "circuit": HOSTILE, "n": HOSTILE, "source": HOSTILE, "seed": HOSTILE},
    ],
)  # fmt: skip
def test_no_page_reads_words_of_others(here: None, name: str, query: dict[str, str]) -> None:
    test = page(name, **query)
    as_text(test)
    if name in ("compare", "cmap", "logits") and query["model"] == HOSTILE:
        next(button for button in test.button if button.label == "Run").click()
        test.run()
    if (name, query) != ("circuit", OURS):  # which a browser shows, as it takes long
        ended()
    as_text(test.run())


@pytest.mark.parametrize("section", ["Faithfulness", "CMAP", "Completeness", "Minimality"])
def test_the_papers_page_reads_none(here: None, section: str) -> None:
    test = page("paper", section)
    assert any(unmarked(HOSTILE) in text for text in marked(test._tree))
    as_text(test)


@pytest.mark.parametrize("places", [(0,), (1,), (2,), (3,), (0, 0)])
def test_results_read_none(
    here: None, monkeypatch: pytest.MonkeyPatch, places: tuple[int, ...]
) -> None:
    choose = results.choose

    def some(found: Any) -> list[results.Result]:
        choose(found)
        return [results._read(found[place]) for place in places]

    monkeypatch.setattr(results, "choose", some)
    test = page("results")
    assert any(unmarked(HOSTILE) in text for text in marked(test._tree))
    as_text(test)


@pytest.mark.parametrize("name", [f"{AS_FILE}.json", "plain.json"])
def test_an_uploaded_circuit_is_told_of_as_text(here: None, name: str) -> None:
    with pytest.raises(catalogue.UserError) as told:
        catalogue.add_circuit(name, (catalogue.ADDED_CIRCUITS / "wrong.json").read_bytes())
    test = page("models")
    test.session_state["upload_complaint"] = str(told.value)
    test.session_state["add_complaint"] = str(told.value)
    as_text(test.run())


_MARKDOWN = {
    "markdown", "caption", "error", "warning", "info", "success", "toast", "metric", "progress",
    "button", "popover", "expander", "status", "tabs", "segmented_control", "pills", "toggle",
    "header", "subheader", "title", "write", "download_button", "text_input", "selectbox",
}  # fmt: skip
_NAMES = {"error", "complaint", "complaints", "explained", "how_it_ended", "what_now", "misfit"}
_FIELDS = {"label", "finetuned_on", "paper_counterpart", "stage", "flaw", *_NAMES}


def _unguarded(node: ast.AST) -> Iterator[str]:
    """Words of others in an expression that are not in a call of `unmarked`."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "unmarked":
        return
    is_field = isinstance(node, ast.Attribute) and node.attr in _FIELDS
    if is_field or (isinstance(node, ast.Name) and node.id in _NAMES):
        yield ast.unparse(node)
    for child in ast.iter_child_nodes(node):
        yield from _unguarded(child)


@pytest.mark.parametrize(
    "path", [*(ROOT / "pages").glob("*.py"), *(ROOT / "shell").rglob("*.py")], ids=lambda p: p.name
)
def test_errors_and_labels_are_never_given_to_markdown_as_they_are(path: Path) -> None:
    found = []
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        if call.func.attr not in _MARKDOWN or ast.unparse(call.func.value) != "st":
            continue
        shown = [*call.args[:2], *(k.value for k in call.keywords if k.arg in ("help", "label"))]
        found += [f"line {call.lineno}: {words}" for each in shown for words in _unguarded(each)]
    assert not found, f"wrap them in `unmarked`: {found}"
