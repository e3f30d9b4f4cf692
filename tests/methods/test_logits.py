"""Direct attribution, lens and copying as methods: what they say of planted models, and keep."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.commands.cli import main
from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.serialize import from_json, to_json
from backend.core.statistics import mean_estimate
from backend.methods.copying import TOP, Copying, CopyingRequest, copying
from backend.methods.logit_attribution import (
    LogitAttribution,
    LogitAttributionRequest,
    logit_attribution,
    parts_of,
)
from backend.methods.logit_lens import (
    LAST,
    LogitLens,
    LogitLensRequest,
    first_clear,
    logit_lens,
    token_names,
)
from backend.methods.rows import figures
from backend.models.loading import LoadedModel, load_model
from backend.studies import studies
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts
from tests import planted, planted_ioi

PROMPTS = Prompts(ENTITY_TRACKING, 40, 0, (3,))
NAMES = Prompts(IOI, 40, 0)
REQUESTS = {
    "logit-attribution": LogitAttributionRequest,
    "logit-lens": LogitLensRequest,
    "copying": CopyingRequest,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A model that tracks entities, and one that identifies indirect objects."""
    place = tmp_path_factory.mktemp("planted")
    for name, of in (("boxes", planted), ("names", planted_ioi)):
        of.model().save_pretrained(place / name)
        of.tokenizer().save_pretrained(place / name)
    return {name: str(place / name) for name in ("boxes", "names")}


@pytest.fixture(scope="module")
def boxes(folders: dict[str, str]) -> LoadedModel:
    return load_model(folders["boxes"])


@pytest.fixture(scope="module")
def names(folders: dict[str, str]) -> LoadedModel:
    return load_model(folders["names"])


def test_fetchers_write_the_answer_and_are_clear(boxes: LoadedModel) -> None:
    found = logit_attribution(boxes, PROMPTS)
    parts = parts_of(found)
    fetchers = planted.CIRCUIT["A"]
    assert found.clear.issuperset(fetchers)
    for head in fetchers:
        assert found.heads[head.layer][head.index].low > 1
    assert mean_estimate(parts.of_heads(fetchers)).value > 0.95 * found.difference.value
    assert found.choices[0]
    assert found.choices[0].is_above_chance
    assert found.gap < 1e-3
    assert found.cap is None


def test_name_movers_write_for_the_answer_and_the_negative_one_against_it(
    names: LoadedModel,
) -> None:
    found = logit_attribution(names, NAMES)
    for head in planted_ioi.CIRCUIT["NM"]:
        assert found.heads[head.layer][head.index].low > 1
    against = planted_ioi.NEGATIVE
    assert found.heads[against.layer][against.index].high < -1
    assert found.answers[0] in found.texts[0]


def test_the_parts_of_every_prompt_are_kept_and_sum_to_the_difference(boxes: LoadedModel) -> None:
    found = logit_attribution(boxes, PROMPTS)
    parts = parts_of(from_json(LogitAttribution, json.loads(json.dumps(to_json(found)))))
    sums = parts.heads.sum((1, 2)) + (parts.mlps + parts.attention_biases).sum(1)
    np.testing.assert_allclose(sums + parts.embedding + parts.bias, parts.difference, atol=1e-3)
    for layer, row in enumerate(found.heads):
        for index, estimate in enumerate(row):
            assert estimate.value == pytest.approx(parts.heads[:, layer, index].mean(), abs=1e-5)
    with pytest.raises(UserError, match=r"damaged.*run again"):
        parts_of(replace(found, by_prompt="AAAA"))


def test_the_answer_can_be_read_where_the_fetchers_have_written(boxes: LoadedModel) -> None:
    found = logit_lens(boxes, PROMPTS)
    assert [*found.tokens] == ["prev_query_label", "query_label", "last"]
    depth = first_clear(found.tokens["last"])
    layer = max(head.layer for head in planted.CIRCUIT["A"])
    assert depth == layer + 1
    last = found.tokens["last"][-1]
    assert (last.first.value, last.rank.value) == (1, 1)
    assert last.probability.value > last.competitor.value
    assert last.competitor_rank.value > 1
    assert first_clear(found.tokens["last"][:depth]) is None
    assert found.choices[0]
    assert found.choices[0].share == last.forced


def test_a_task_whose_last_token_has_no_name_is_read_there_too() -> None:
    assert token_names(ENTITY_TRACKING) == ENTITY_TRACKING.position_names
    nameless = replace(ENTITY_TRACKING.positions[-1], tail=None)
    task = replace(ENTITY_TRACKING, positions=(*ENTITY_TRACKING.positions[:-1], nameless))
    assert token_names(task) == (*ENTITY_TRACKING.position_names, LAST)


def test_movers_copy_clearly_and_others_do_not(names: LoadedModel) -> None:
    found = copying(names, NAMES)
    assert set(found.words) <= set(planted_ioi.PEOPLE)
    assert found.chance == TOP / len(found.words)
    assert found.clear() == set(planted_ioi.CIRCUIT["NM"])
    assert found.clear(opposed=True) == {planted_ioi.NEGATIVE}
    scores = dict(zip(found.heads, found.scores(), strict=True))
    for head in planted_ioi.CIRCUIT["NM"]:
        assert scores[head].value == 1
        assert scores[head].n == len(found.words)
    assert scores[planted_ioi.NEGATIVE].value == 0
    assert found.heads[5] == Head(1, 1)


def test_too_few_words_cannot_be_scored(boxes: LoadedModel) -> None:
    with pytest.raises(UserError, match=r"only 2 answers.*Choose more prompts"):
        copying(boxes, Prompts(ENTITY_TRACKING, 1, 0, (2,)))


@pytest.mark.parametrize("command", REQUESTS)
def test_commands_keep_what_they_measure(
    folders: dict[str, str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    request = REQUESTS[command]((folders["boxes"],), replace(PROMPTS, n=20))
    assert main([command, folders["boxes"], "--prompts", "20", "--boxes", "3"]) == 0
    out, err = capsys.readouterr()
    assert "100%" in err
    stored = studies.find(request)
    assert stored
    assert json.loads(out)["header"]["method"] == command
    rows = figures(request, stored.parts)
    assert all(row.item.startswith(folders["boxes"]) for row in rows)
    assert len({(row.item, row.what) for row in rows}) == len(rows)
    assert isinstance(stored.parts[0], LogitAttribution | LogitLens | Copying)
    assert main([command, folders["boxes"], "--prompts", "20", "--boxes", "3"]) == 0
    assert "stored: measured on" in capsys.readouterr().err


def test_what_was_begun_goes_on(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A model that is done is a part, and is not run again."""
    request = LogitAttributionRequest((folders["boxes"], folders["names"]), PROMPTS)
    with pytest.raises(UserError, match="tokenizer"):
        [*studies.run(request, lambda *_: None)]
    stored = studies.find(request)
    assert stored
    assert len(stored.parts) == 1
    run: list[Any] = []
    monkeypatch.setattr(
        "backend.methods.logit_attribution.logit_attribution", lambda *given: run.append(given)
    )
    with suppress(Exception):  # nothing that can be stored comes of it
        [*studies.run(request, lambda *_: None)]
    assert [given[0].name for given in run] == [folders["names"]]
