"""`python -m takehome`: files of a circuit, or a message about what to put right."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import pytest

from backend.core.heads import Head
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from takehome.__main__ import main

FEW = ("--prompts", "20", "--boxes", "2")


@pytest.fixture
def circuit(tmp_path: Path) -> str:
    """The file of a few heads of the base's circuit."""
    whole = catalogue.circuit("base")
    path = tmp_path / "few.json"
    path.write_text(whole.keep(whole.members[::5]).to_json())
    return str(path)


def test_all_files_at_once(
    tmp_path: Path, circuit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ("svg", "png", "pdf", "html", "graphml", "attribution-graph", "bibtex")
    files = [word for kind in kinds for word in (f"--{kind}", str(tmp_path / f"it.{kind}"))]
    assert main(["base", "--circuit", circuit, "--dark", *files, *FEW]) == 0
    told = capsys.readouterr().err
    assert "Measuring Base: 100%" in told
    assert all(f"written to {tmp_path / f'it.{kind}'}" in told for kind in kinds)
    root = ElementTree.fromstring((tmp_path / "it.svg").read_text())
    assert next(each for each in root if each.tag.endswith("rect")).attrib["fill"] == "#12151c"
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "it.pdf").read_bytes().startswith(b"%PDF-")
    assert "20 prompts, seed 0, 2 boxes" in (tmp_path / "it.html").read_text()
    n_heads = len(Circuit.from_json(Path(circuit).read_text()).members)
    assert len(nx.read_graphml(tmp_path / "it.graphml")) == n_heads + 1
    graph = json.loads((tmp_path / "it.attribution-graph").read_text())
    assert len(graph["nodes"]) == n_heads + 1
    assert "@software{circuitexplorer" in (tmp_path / "it.bibtex").read_text()
    main(["base", "--circuit", circuit, "--html", str(tmp_path / "again.html"), *FEW])
    assert "stored: measured on" in capsys.readouterr().err
    assert (tmp_path / "again.html").read_text() == (tmp_path / "it.html").read_text()


def test_what_is_wrong_is_said(
    tmp_path: Path, circuit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["base"]) == 1
    assert "Say which file is wanted: --svg" in capsys.readouterr().err
    svg = ("--svg", str(tmp_path / "it.svg"))
    assert main(["no-such-model", "--circuit", circuit, *svg]) == 1
    assert "error: " in capsys.readouterr().err
    outside = tmp_path / "outside.json"
    outside.write_text(Circuit.of(ENTITY_TRACKING, {"A": [Head(40, 0)]}, "x").to_json())
    assert main(["base", "--circuit", str(outside), *svg]) == 1
    assert "L40.0" in capsys.readouterr().err
    assert not (tmp_path / "it.svg").exists()
    with pytest.raises(SystemExit):
        main(["base", "--svg", str(tmp_path / "nowhere" / "it.svg")])
    assert "its folder is not there" in capsys.readouterr().err
