"""`make real` adds the adapters that come with this tool, on the model that they were made for."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model

from backend.commands.cli import main
from backend.core.errors import UserError
from backend.models import catalogue, gguf_folders, real_model, registry
from backend.models.loading import load_model
from backend.models.model_config import blueprint, misfit
from backend.models.registry import Entry
from backend.tasks.circuit import Circuit
from backend.tasks.ioi import IOI
from tests.models.test_real_model import packed as packed
from tests.models.test_real_model import pip

NAMES = ("smollm2-one", "smollm2-two")


@pytest.fixture
def shipped(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two adapters on a tiny model that stands in for the package's."""
    monkeypatch.setattr(subprocess, "run", pip(packed)[0])
    folder = tmp_path / "adapters"
    monkeypatch.setattr(real_model, "ADAPTERS", folder)
    monkeypatch.setattr(real_model, "CIRCUITS", tmp_path / "circuits")
    return folder


def ship(folder: Path, model: Entry) -> None:
    for name in NAMES:
        config = LoraConfig(r=2, target_modules=["q_proj", "o_proj"], init_lora_weights=False)
        adapted = get_peft_model(load_model(model.name).model, config)
        adapted.peft_config["default"].base_model_name_or_path = "smollm2"
        adapted.save_pretrained(folder / name, save_embedding_layers=False)
        card = {"label": f"Adapter {name}", "finetuned_on": "nothing"}
        (folder / name / "card.json").write_text(json.dumps(card))


def added() -> tuple[tuple[Entry, bool], ...]:
    return real_model.add(lambda *_: None)


def test_nothing_of_them_is_known_before() -> None:
    assert not [name for name in registry.models() if name.startswith("smollm2")]


def test_they_are_added_beside_the_model_and_fit_it(
    shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ((model, _),) = added()
    ship(shipped, model)
    assert main(["real"]) == 0
    told = capsys.readouterr()
    assert "“smollm2” is there already" in told.err
    assert "“smollm2-one” is added" in told.err
    entry = registry.entry("smollm2-two")
    assert entry.source == registry.entry("smollm2").source
    assert (entry.label, entry.finetuned_on) == ("Adapter smollm2-two", "nothing")
    plans = [blueprint(registry.entry(name)) for name in ("smollm2", "smollm2-two")]
    assert plans[0]
    assert plans[1]
    assert misfit(plans[0], plans[1], ("smollm2", "smollm2-two")) is None
    landed = load_model("smollm2-two").adapter
    assert landed
    assert landed.moves > 0


def test_only_what_is_missing_is_added_again(shipped: Path) -> None:
    ((model, is_new),) = added()
    assert is_new
    ship(shipped, model)
    assert [is_new for _, is_new in added()] == [False, True, True]
    assert [is_new for _, is_new in added()] == [False, False, False]
    registry.remove("smollm2-one")
    assert [is_new for _, is_new in added()] == [False, True, False]


def test_a_model_that_is_made_again_elsewhere_takes_its_adapters_along(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((model, _),) = added()
    ship(shipped, model)
    added()
    shutil.rmtree(Path(model.source))
    monkeypatch.setattr(gguf_folders, "MADE", tmp_path / "moved")
    assert [is_new for _, is_new in added()] == [True, True, True]
    entries = [registry.entry(name) for name in ("smollm2", *NAMES)]
    assert {entry.source for entry in entries} == {entries[0].source}
    assert entries[0].source != model.source


def test_their_circuits_are_added_and_a_circuit_of_that_name_stays(shipped: Path) -> None:
    circuit = Circuit.of(IOI, {"NM": [(1, 0)]}, "found")
    real_model.CIRCUITS.mkdir()
    (real_model.CIRCUITS / "found.json").write_text(circuit.to_json())
    added()
    assert catalogue.circuit("found").sites == circuit.sites
    other = Circuit.of(IOI, {"NM": [(0, 1)]}, "found")
    catalogue.add_circuit("found.json", other.to_json().encode())
    added()
    assert catalogue.circuit("found").sites == other.sites


def test_a_model_of_ones_own_under_an_adapters_name_stays(shipped: Path) -> None:
    ((model, _),) = added()
    ship(shipped, model)
    registry.add("smollm2-one", "owner/name")
    with pytest.raises(UserError, match="There is a model “smollm2-one” already"):
        added()
    assert registry.entry("smollm2-one").source == "owner/name"


def test_they_are_put_on_no_other_model(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((model, _),) = added()
    ship(shipped, model)
    monkeypatch.setattr(real_model, "_MEMBER_SHA256", "of another file")
    with pytest.raises(UserError, match="does not hold the model that it did"):
        added()
    assert not any(name in registry.models() for name in NAMES)
