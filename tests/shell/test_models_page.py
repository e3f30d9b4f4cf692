"""The Models page without a browser: add, load, compare, unload; and what goes wrong."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType
from streamlit.testing.v1 import AppTest

from backend.core.placement import Dtype, Placement
from backend.models import catalogue, gguf_folders, loaded_models, registry
from backend.studies import jobs
from backend.studies.session import prepare
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from tests import tiny
from tests.dashboard import ROOT
from tests.models.test_gguf import model_of, write

APP = ROOT / "app.py"


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "ADDED", tmp_path / "models.toml")
    for name in loaded_models.loaded():
        loaded_models.unload(name)
    yield
    for name in loaded_models.loaded():
        loaded_models.unload(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mine")
    tiny.llama().save_pretrained(place)
    tiny.word_tokenizer().save_pretrained(place)
    return place


def page() -> AppTest:
    test = AppTest.from_file(str(APP), default_timeout=60)
    test.query_params["model"] = "none"  # or the first page would load a model meanwhile
    test.run()
    test.switch_page("pages/models.py").run()
    assert not test.exception
    return test


def press(test: AppTest, key: str) -> None:
    test.button(key=key).click().run()
    assert not test.exception


def add(test: AppTest, **fields: str) -> None:
    for field, text in fields.items():
        test.text_input(key=f"new_{field}").set_value(text)
    next(button for button in test.button if button.label == "Add").click().run()
    assert not test.exception


def finish(test: AppTest, name: str) -> None:
    """Wait for a load, and draw the page again."""
    if load := test.session_state["loads"].get(name):
        load.future.exception(60)
    test.run()
    assert not test.exception


def shown(test: AppTest) -> str:
    """All the words of the page."""
    elements = [*test.markdown, *test.caption, *test.get("html")]
    return "\n".join(str(getattr(e, "value", None) or e.proto.body) for e in elements)


def test_every_known_model_is_listed_with_where_it_is() -> None:
    test = page()
    words = shown(test)
    for name in catalogue.models():
        assert catalogue.label(name) in words
        assert test.button(key=f"load_{name}").label == "Load"
    assert "316 k parameters, 1.3 MB in float32" in words
    assert "not on this computer" in words
    assert "huggyllama/llama-7b + tiedong/goat-lora-7b" in words


def test_a_model_is_added_loaded_compared_unloaded_and_removed(folder: Path) -> None:
    test = page()
    add(test, name="mine", source=str(folder), finetuned_on="sums <b>")
    assert not test.error
    assert test.text_input(key="new_name").value == ""
    assert "sums &lt;b&gt;" in shown(test)
    assert "mine** with no other: 4 layers, 4 heads" in shown(test)
    assert "Base has 5 layers, mine has 4" in shown(test)
    press(test, "load_mine")
    finish(test, "mine")
    assert "Loaded" in shown(test)
    assert "cpu · float32 · 127 kB" in shown(test)
    press(test, "unload_mine")
    assert "mine" not in loaded_models.loaded()
    press(test, "remove_mine")
    assert "mine" not in catalogue.models()


def test_a_gguf_file_is_added_in_a_job_and_its_quantisation_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_folders, "MADE", tmp_path / "made")
    file = write(tmp_path / "tiny.gguf", model_of("llama"), kind=GGMLQuantizationType.Q4_1)
    test = page()
    add(test, name="mine", source=str(file))
    finish(test, "mine")
    assert " · Q4_1, made float32" in shown(test)
    add(test, name="mine", source=str(file))
    assert "There is a model “mine” already" in test.error[0].value
    file.write_bytes(b"GGUF")
    add(test, name="another", source=str(file))
    finish(test, "another")
    assert "cannot be read" in test.error[0].value
    assert "another" not in catalogue.models()


def test_models_over_one_base_say_what_they_share() -> None:
    test = page()
    for name in ("base", "arithmetic-lora"):
        press(test, f"load_{name}")
        finish(test, name)
    assert "cpu · float32 · 1.5 MB, 1.3 MB of it shared" in shown(test)


def test_small_numbers_come_with_a_verdict_on_their_noise() -> None:
    test = page()
    test.segmented_control(key="new_dtype").set_value(Dtype.bfloat16).run()
    assert "632 kB in bfloat16" in shown(test)
    press(test, "load_base")
    finish(test, "base")
    assert loaded_models.loaded()["base"].placement.dtype is Dtype.bfloat16
    model = weakref.ref(loaded_models.loaded()["base"])
    asked = jobs.known(("noise", model, ENTITY_TRACKING))
    assert asked
    asked.future.result(60)
    test.run()
    test.session_state["model"] = "base"
    for name in ("models", "discover"):
        test.switch_page(f"pages/{name}.py").run()
        said = [*test.warning, *test.caption]
        told = [element.value for element in said if "ounding in bfloat16" in element.value]
        assert [text.startswith("Base: ") for text in told] == [True]
        assert told[0].endswith("8 prompts, seed 0, 7 boxes.")
    test.switch_page("pages/models.py").run()
    press(test, "unload_base")
    assert model() is None


def test_a_model_that_cannot_be_had_says_what_to_do() -> None:
    test = page()
    press(test, "load_vicuna-7b")
    finish(test, "vicuna-7b")
    (error,) = test.error
    assert "hf download AlekseyKorshuk/vicuna-7b" in error.value
    press(test, "load_base")
    finish(test, "base")
    assert not test.error


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "base", "source": "a/b"}, "There is a model “base” already"),
        ({"name": "../x", "source": "a/b"}, "cannot be used as a name"),
        ({"name": "x", "source": "/no/such/folder"}, "There is no model “/no/such/folder”"),
        ({"name": "x", "source": "a/b", "adapter": "c"}, "There is no model “c”"),
    ],
)
def test_what_cannot_be_added_is_explained_and_stays_in_the_form(
    fields: dict[str, str], message: str
) -> None:
    test = page()
    add(test, **fields)
    assert message in test.error[0].value
    assert test.text_input(key="new_name").value == fields["name"]


def test_a_malformed_file_is_told_on_the_page() -> None:
    registry.ADDED.write_text("[x\n")
    test = page()
    assert "cannot be read" in test.warning[0].value
    assert test.button(key="load_base")


@pytest.mark.parametrize("usual", [Placement(), Placement(tf32=True)], ids=["float32", "rough"])
def test_unloading_frees_what_pages_prepared(folder: Path, usual: Placement) -> None:
    loaded_models.place_by_default(usual)
    registry.add("mine", str(folder))
    setting = Setting("mine", Prompts(ENTITY_TRACKING, 50, 0, (7,)))
    job = jobs.job(setting, lambda report: iter([prepare(setting, report)]))
    job.future.result(120)
    model = weakref.ref(loaded_models.loaded()["mine"].model)
    del job
    test = page()
    press(test, "unload_mine")
    for each in [*jobs._jobs.values()]:
        each.future.exception(120)  # what rounding does was measured
    assert model() is None
    assert "mine" not in loaded_models.loaded()
    assert jobs.known(setting) is None
