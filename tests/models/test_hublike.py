"""A model as the hub has it goes through every command and every page: base, and LoRA adapter."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from tokenizers import Tokenizer

from backend.commands.cli import main
from backend.core import serialize
from backend.methods.cmap import Cmap, cmap, group_sets
from backend.methods.compare import ComparedModel, compare
from backend.methods.completeness import Completeness
from backend.methods.edges import Edges
from backend.methods.evaluation import examine
from backend.methods.minimality import Minimality
from backend.models import catalogue
from backend.models.loaded_models import load
from backend.models.loading import load_model
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING, sample_prompts
from backend.tasks.prompts import Prompts
from shell.frame.words import unmarked
from tests import hublike, planted, tiny, trained
from tests.dashboard import ROOT
from tests.shell.apps import figures

APP = ROOT / "app.py"

PROMPTS = ("--prompts", "30", "--boxes", "3")
NOTE = "The prompts leave out 77 of 85 objects and 18 of 26 labels"


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The folders of the base and of the adapter, and the file of their circuit."""
    place = tmp_path_factory.mktemp("hublike")
    base, adapter = hublike.save_family(place)
    circuit = place / "circuit.json"
    circuit.write_text(Circuit.of(ENTITY_TRACKING, planted.CIRCUIT, "planted").to_json())
    return {"base": base, "adapter": adapter, "circuit": str(circuit)}


@pytest.fixture(autouse=True)
def _own_circuits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(catalogue, "ADDED_CIRCUITS", tmp_path / "circuits")


def run(capsys: Any, *words: str) -> tuple[Any, str]:
    code = main([*words, *PROMPTS])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out), err


def test_its_files_are_read_as_transformers_of_the_time_wrote_them(family: dict[str, str]) -> None:
    folder = Path(family["base"])
    assert (folder / "model.safetensors.index.json").is_file()
    assert len([*folder.glob("model-*.safetensors")]) > 1
    loaded = load_model(family["base"])
    assert type(loaded.tokenizer).__name__ == "LlamaTokenizer"
    prompts = sample_prompts(loaded.tokenizer, 5, n_boxes=3)
    as_saved = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert prompts.input_ids.tolist() == [each.ids for each in as_saved.encode_batch(prompts.texts)]
    assert (prompts.input_ids[:, 0] == loaded.tokenizer.bos_token_id).all()
    theta = loaded.model.config.rope_parameters["rope_theta"]
    assert theta == planted.model().config.rope_parameters["rope_theta"]


def test_accuracy(capsys: Any, family: dict[str, str]) -> None:
    data, err = run(capsys, "accuracy", family["base"], family["adapter"])
    base, adapted = (part["accuracy"] for part in data["parts"])
    assert base["value"] > adapted["value"] > 0.3
    assert f"{family['base']}: {NOTE}" in err


def test_faithfulness(capsys: Any, family: dict[str, str]) -> None:
    data, _ = run(
        capsys, "faithfulness", family["base"], family["adapter"], "--circuit", family["circuit"]
    )
    assert data["parts"][0]["faithfulness"]["value"] == pytest.approx(1, abs=0.1)


def test_discover(capsys: Any, family: dict[str, str]) -> None:
    sizes = ("A=2", "B=1", "C=1", "D=1")
    data, _ = run(capsys, "discover", family["base"], "--keep", *sizes, "--save", "found")
    expected = Circuit.of(ENTITY_TRACKING, planted.CIRCUIT)
    assert Circuit.from_data(data).nodes == expected.nodes
    assert catalogue.circuit("found").nodes == expected.nodes


def test_discover_in_the_adapted_model(capsys: Any, family: dict[str, str]) -> None:
    data, _ = run(capsys, "discover", family["adapter"], "--keep", "A=2", "B=1", "C=1", "D=1")
    assert set(planted.CIRCUIT["A"]) == set(Circuit.from_data(data).heads("A"))


def test_compare(capsys: Any, family: dict[str, str]) -> None:
    data, _ = run(
        capsys, "compare", family["base"], family["adapter"], "--circuit", family["circuit"]
    )
    figures = [serialize.from_json(ComparedModel, part).figures for part in data["parts"]]
    assert [each.name for each in figures] == [family["base"], family["adapter"]]
    assert all(each.faithfulness.value > 0.5 for each in figures)


def test_cmap(capsys: Any, family: dict[str, str]) -> None:
    data, _ = run(
        capsys, "cmap", family["base"], family["adapter"], "--circuit", family["circuit"], "--map"
    )
    result = serialize.from_json(Cmap, data["parts"][0])
    assert result.sets["none"].recovery.value == 0
    assert result.sets["all"].recovery.value > 0.5


def test_minimality(capsys: Any, family: dict[str, str]) -> None:
    data, _ = run(capsys, "minimality", family["base"], "--circuit", family["circuit"])
    found = serialize.from_json(Minimality, data["parts"][0])
    assert len(found.heads) == 5


def test_completeness(capsys: Any, family: dict[str, str]) -> None:
    data, _ = run(
        capsys, "completeness", family["base"], "--circuit", family["circuit"], "--sets", "4"
    )
    assert serialize.from_json(Completeness, data["parts"][0]).mean_incompleteness.value < 0.2


def test_edges(capsys: Any, family: dict[str, str]) -> None:
    data, _ = run(capsys, "edges", family["base"], "--circuit", family["circuit"])
    found = serialize.from_json(Edges, data["parts"][0])
    assert all(edge.weight.value < 0 for edge in found.edges)


def test_too_many_boxes_for_its_words_is_said(capsys: Any, family: dict[str, str]) -> None:
    assert main(["accuracy", family["base"], "--prompts", "3", "--boxes", "9"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "only 8 of the objects as one token each, and 9 are needed" in error


def test_a_model_that_cannot_do_the_task_is_told_so(capsys: Any, tmp_path: Path) -> None:
    tokenizer = trained.normalised_sentencepiece()
    hublike.save(tiny.llama(vocab_size=len(tokenizer)), tokenizer, tmp_path / "random")
    assert main(["discover", str(tmp_path / "random"), "--prompts", "5"]) == 1
    assert "of 50 prompts right" in capsys.readouterr().err


def page(name: str, chosen: Mapping[str, str] = MappingProxyType({}), **values: str) -> AppTest:
    """A page on this model's prompts, with the planted circuit in the sidebar."""
    catalogue.add_circuit(
        "planted.json", Circuit.of(ENTITY_TRACKING, planted.CIRCUIT, "planted").to_json().encode()
    )
    test = AppTest.from_file(str(APP), default_timeout=60)
    test.query_params.update({"n": "50", "boxes": "3", "circuit": "planted"} | values)
    test.run()
    for key, value in chosen.items():
        test.session_state[key] = value
    return settled(rerun(test.switch_page(f"pages/{name}.py")))


def rerun(test: AppTest) -> AppTest:
    test.run()
    assert not test.exception
    assert not test.error
    return test


def settled(test: AppTest) -> AppTest:
    """The page once nothing runs on it that could be cancelled."""
    deadline = time.monotonic() + 120
    while any(button.label == "Cancel" for button in test.button):
        assert time.monotonic() < deadline
        rerun(test)
    return test


def press(test: AppTest, label: str) -> AppTest:
    next(button for button in test.button if button.label.startswith(label)).click()
    return settled(rerun(test))


def is_noted(test: AppTest, *names: str) -> bool:
    """Whether it says which words the prompts of these models leave out."""
    labels = ", ".join(unmarked(catalogue.label(name)) for name in names)
    return any(caption.value.startswith(f"{labels}: {NOTE}") for caption in test.caption)


def html(test: AppTest) -> str:
    return " ".join(element.proto.body for element in test.get("html"))


@pytest.mark.parametrize("name", ["base", "adapter"])
def test_the_circuit_page(name: str, family: dict[str, str]) -> None:
    test = page("circuit", model=family[name])
    whole = examine(load_model(family[name]), Prompts(ENTITY_TRACKING, 50, 0, (3,))).whole
    assert figures(test)["Whole model"] == f"{whole.mean():.3f}"
    assert is_noted(test, family[name])


def test_the_circuit_page_patches_from_the_adapted_model(family: dict[str, str]) -> None:
    heads = {"off": "A3.1", "mode": "other", "source": family["adapter"]}
    test = page("circuit", model=family["base"], **heads)
    assert figures(test).keys() >= {"Whole model", "Faithfulness"}


def test_the_compare_page(family: dict[str, str]) -> None:
    test = page("compare", model=family["adapter"])
    names = [family["base"], family["adapter"]]
    test.multiselect(key="compared").set_value(names)
    press(rerun(test), "Run")
    evaluations = [
        examine(load_model(name), Prompts(ENTITY_TRACKING, 50, 0, (3,))) for name in names
    ]
    for model in compare(
        evaluations, Circuit.of(ENTITY_TRACKING, planted.CIRCUIT, "planted")
    ).models:
        assert f"{model.faithfulness.value:.3f}" in html(test)
    assert is_noted(test, *names)


def test_the_cmap_page(family: dict[str, str]) -> None:
    pair = {"source": family["base"], "target": family["adapter"]}
    test = press(page("cmap", pair, model=family["base"]), "Run")
    source, target = (
        examine(load_model(family[name]), Prompts(ENTITY_TRACKING, 50, 0, (3,)))
        for name in ("base", "adapter")
    )
    circuit = Circuit.of(ENTITY_TRACKING, planted.CIRCUIT, "planted")
    for outcome in cmap(source, target, group_sets(circuit)).sets.values():
        assert f"{outcome.accuracy.value:.3f}" in html(test)
    assert is_noted(test, *pair.values())


def test_the_discover_page(family: dict[str, str]) -> None:
    test = page("discover", model=family["base"])
    for group, heads in planted.CIRCUIT.items():
        test.number_input(key=f"discover_keep_{group}").set_value(len(heads))
    press(rerun(test), "Run all four stages")
    for what in ("minimality", "completeness", "edges"):
        press(test, f"Measure {what}")
    assert is_noted(test, family["base"])
    said = " ".join(element.value for element in [*test.caption, *test.markdown])
    assert "Strongest: " in said
    for heads in planted.CIRCUIT.values():
        assert all(str(head) in said for head in heads)


def test_the_paper_page(family: dict[str, str]) -> None:
    assert page("paper", model=family["base"]).tabs


def test_the_results_page(capsys: Any, family: dict[str, str]) -> None:
    run(capsys, "faithfulness", family["base"], "--circuit", family["circuit"])
    (listed,) = page("results", model=family["base"]).dataframe
    assert [*listed.value["method"]] == ["Faithfulness"]
    assert [*listed.value["circuit"]] == ["planted (5)"]


def test_the_models_page(family: dict[str, str]) -> None:
    for folder in family["base"], family["adapter"]:
        load(folder)
    test = page("models", model=family["adapter"])
    for folder in family["base"], family["adapter"]:
        assert test.button(key=f"unload_{folder}")
        assert Path(folder).name in html(test)
