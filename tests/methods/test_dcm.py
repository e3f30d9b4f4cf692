"""DCM: learnt as by whole runs and torch's Adam, on planted circuits, and however it is cut off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.commands.cli import main
from backend.core.errors import UserError
from backend.core.heads import Head, Site
from backend.core.kept import Folder
from backend.core.progress import Cancelled
from backend.core.serialize import from_json, to_json
from backend.core.statistics import Estimate
from backend.engine import checkpoints
from backend.engine.architectures import shape_of
from backend.methods import mask_learning
from backend.methods.dcm import (
    METHOD,
    Among,
    Dcm,
    DcmRequest,
    best,
    curve_so_far,
    found_circuit,
    random_heads,
)
from backend.methods.mask_learning import chosen, learn
from backend.methods.pairs_patched import examined_pairs, some_pairs
from backend.models import catalogue, loaded_models
from backend.models.loading import LoadedModel
from backend.studies import studies
from backend.tasks.circuit import Circuit
from backend.tasks.desiderata import Pairs
from backend.tasks.entity_tracking import ENTITY_TRACKING, sample_prompts
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts
from tests import oracles, planted, planted_ioi, tiny

TOKENIZER = tiny.word_tokenizer()
SITES = tuple(Site(Head(layer, index), "last") for layer in (1, 2, 3) for index in (0, 2, 3))
N_BATCHES, BATCH, EPOCHS, RATE = 3, 4, 3, 0.1
HEADS = Circuit.of(ENTITY_TRACKING, planted.CIRCUIT, "planted")
FEW = Prompts(ENTITY_TRACKING, 48, 0, (3,))


def some(n: int) -> Pairs:
    """Pairs with any answer that is expected."""
    base = sample_prompts(TOKENIZER, n, n_boxes=3)
    return Pairs(base, sample_prompts(TOKENIZER, n, seed=1, n_boxes=3), base.choice_ids[:, 1])


def plain_logits(model: Any, pairs: Pairs, mask: Tensor) -> Tensor:
    """Of whole runs, with the heads under the mask mixed on their way into the projection."""
    d_head, others = oracles.sizes(model)[3], oracles.head_outputs(model, pairs.alternate)

    def mix(layer: int) -> Any:
        def hook(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor]:
            heads = [*given[0].unflatten(-1, (-1, d_head)).unbind(2)]
            for part, ((at, index), _last) in zip(mask, SITES, strict=True):
                if at == layer:
                    own, other = heads[index], others[layer, :, :, index]
                    mixed = part * own[:, -1] + (1 - part) * other[:, -1]
                    heads[index] = torch.cat([own[:, :-1], mixed[:, None]], 1)
            return (torch.cat(heads, -1),)

        return hook

    with ExitStack() as hooks:
        for layer in range(oracles.sizes(model)[0]):
            out = oracles.parts(model, layer)["o"]
            hooks.enter_context(out.register_forward_pre_hook(mix(layer)))
        ids = torch.tensor(pairs.base.input_ids)
        return oracles.base_of(model)(input_ids=ids, use_cache=False).logits[:, -1]


def plainly_learnt(model: Any, pairs: Pairs, check: Any, penalty: float) -> Any:
    """The losses, the masks that were checked and what came out, with torch's optimizer."""
    mask = torch.ones(len(SITES), dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([mask], lr=RATE)
    losses, masks = [], [mask.detach().clone()]
    for step in range(N_BATCHES * EPOCHS):
        start = step % N_BATCHES * BATCH
        batch = some_pairs(pairs, slice(start, start + BATCH))
        with torch.no_grad():
            mask.clamp_(0, 1)
        logits = plain_logits(model, batch, mask)
        expected = logits[torch.arange(BATCH), torch.tensor(batch.expected_ids)]
        loss = -expected.mean() + penalty * (1 - mask).sum()
        adam.zero_grad()
        loss.backward(inputs=[mask])
        adam.step()
        losses.append(loss.item())
        if step % 4 == 3 or step == N_BATCHES * EPOCHS - 1:
            masks.append(mask.detach().clamp(0, 1))
    return losses, torch.stack(masks), [check(each.round() == 0) for each in masks]


@pytest.mark.parametrize("kind", ["llama", "lora", "neox", "granite"])
def test_a_mask_is_learnt_as_by_whole_runs(kind: str) -> None:
    model = tiny.in_float64(tiny.MAKERS[kind]())
    loaded = LoadedModel(kind, model, TOKENIZER, shape_of(model))
    pairs, others = some(N_BATCHES * BATCH), some(20)
    validation = examined_pairs(loaded, others)

    def check(heads: np.ndarray) -> np.ndarray:
        return validation.ablated([[s for s, on in zip(SITES, heads, strict=True) if on]])[0]

    def check_plainly(heads: Tensor) -> np.ndarray:
        with torch.no_grad():
            logits = plain_logits(model, others, 1 - heads.double())
        return logits.argmax(-1).numpy() == others.expected_ids

    training = [
        partial(examined_pairs, loaded, some_pairs(pairs, slice(start, start + BATCH)))
        for start in range(0, len(pairs.base), BATCH)
    ]
    for penalty in (0.0, 0.03):
        n_steps = N_BATCHES * EPOCHS
        found = learn(training, SITES, n_steps, 4, RATE, penalty, check, lambda _: None)
        losses, masks, right = plainly_learnt(model, pairs, check_plainly, penalty)
        torch.testing.assert_close(found.losses.tolist(), losses, rtol=0, atol=1e-9)
        torch.testing.assert_close(found.checked, masks, rtol=0, atol=1e-7)
        assert found.right.tolist() == [each.tolist() for each in right]
        assert penalty or 0 < chosen(found.mask).sum() < len(SITES)
        n_right = [int(each.sum()) for each in right]
        alike = [m for m, n in zip(masks, n_right, strict=True) if n == max(n_right)]
        fewest = min(alike, key=lambda each: int((each.round() == 0).sum()))
        torch.testing.assert_close(found.best, fewest, rtol=0, atol=1e-7)
    assert all(weights.grad is None for weights in model.parameters())


def test_pairs_are_patched_from_their_alternates() -> None:
    model = tiny.in_float64(tiny.grouped_llama())
    pairs = some(9)
    examined = examined_pairs(LoadedModel("any", model, TOKENIZER, shape_of(model)), pairs)
    off = torch.tensor([float(place % 2) for place in range(len(SITES))], dtype=torch.float64)
    with torch.no_grad():
        expected = plain_logits(model, pairs, off).argmax(-1).numpy() == pairs.expected_ids
    sites = [site for site, part in zip(SITES, off, strict=True) if part == 0]
    assert examined.ablated([sites])[0].tolist() == expected.tolist()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a planted model."""
    folder = tmp_path_factory.mktemp("planted")
    planted.model().save_pretrained(folder)
    planted.tokenizer().save_pretrained(folder)
    return str(folder)


def asked(model: str, group: str, desideratum: str, **changes: Any) -> DcmRequest:
    return DcmRequest(model, HEADS, FEW, group, desideratum, **({"batch": 4} | changes))


def parts_of(request: DcmRequest, folder: Path | None = None, report: Any = None) -> list[Dcm]:
    def unfinished(place: int) -> Folder | None:
        return Folder(folder / str(place)) if folder else None

    return [*METHOD.work(request, (), report or (lambda stage, share: None), unfinished)]


@pytest.mark.parametrize(
    ("group", "desideratum"), [("A", "object"), ("B", "position"), ("C", "position")]
)
def test_the_planted_heads_are_found_among_all(model: str, group: str, desideratum: str) -> None:
    (found,) = parts_of(asked(model, group, desideratum, among=Among.all, epochs=4))
    assert found.heads == planted.CIRCUIT[group]
    assert found.is_carried
    assert found.accuracy.value == found.group.value > 0.9
    assert found.above_group.value == 0
    assert found.random
    assert found.above_random
    assert found.random.value < 0.5 < found.above_random.value
    assert found.nothing.value == 0
    assert [each.head for each in found.mask] == [Head(*at) for at in np.ndindex(4, 4)]
    assert found.chance == pytest.approx(1 / 3)
    guessing = replace(found, accuracy=Estimate(0.3, 0.2, 0.4, 100))
    assert guessing.above_nothing.is_clear
    assert not guessing.is_carried


@pytest.mark.parametrize(
    ("group", "desideratum"), [("A", "position"), ("A", "label"), ("B", "label"), ("D", "object")]
)
def test_nothing_is_found_where_nothing_is_carried(
    model: str, group: str, desideratum: str
) -> None:
    (found,) = parts_of(asked(model, group, desideratum, epochs=4))
    assert not found.is_carried
    assert found.heads == ()
    assert found.random is None
    assert found.accuracy == found.nothing
    assert found.curve.checks[0] == found.validated


@pytest.mark.parametrize(
    ("group", "desideratum", "heads"),
    [("NM", "answer", planted_ioi.CIRCUIT["NM"]), ("SI", "name", planted_ioi.CIRCUIT["SI"]),
     ("SI", "position", ())],
)  # fmt: skip
def test_heads_are_found_for_another_task(
    tmp_path: Path, group: str, desideratum: str, heads: tuple[Head, ...]
) -> None:
    planted_ioi.saved(tmp_path)
    circuit, prompts = Circuit.of(IOI, planted_ioi.CIRCUIT), Prompts(IOI, 48, 0)
    request = DcmRequest(str(tmp_path), circuit, prompts, group, desideratum, Among.all, batch=4)
    # The negative name mover, patched, does write less against what is expected.
    (found,) = parts_of(replace(request, epochs=4, penalties=(1.0,)))
    assert found.heads == heads
    assert found.is_carried == bool(heads)
    loaded_models.unload(str(tmp_path))


def test_a_high_penalty_keeps_nothing(model: str) -> None:
    request = asked(model, "B", "position", penalties=(0.01, 100.0))
    low, high = parts_of(request)
    assert [low.penalty, high.penalty] == [0.01, 100.0]
    assert (low.heads, high.heads) == (planted.CIRCUIT["B"], ())
    assert best([high, low]) is low
    assert parts_of(replace(request, penalties=(100.0,))) == [high]
    assert [*METHOD.work(request, (low,), lambda stage, share: None, lambda _: None)] == [high]


def test_the_curve_has_every_batch_and_check(model: str) -> None:
    request = asked(model, "A", "object", epochs=3, batch=5)
    (found,) = parts_of(request)
    assert len(found.curve.losses) == request.n_steps == 15
    assert [check.step for check in found.curve.checks] == [0, 4, 8, 12, 15]
    assert {check.accuracy.n for check in found.curve.checks} == {12}
    assert found.accuracy.n == 12
    assert from_json(Dcm, json.loads(json.dumps(to_json(found)))) == found


class Steps:
    """Counts steps, and ends the work after so many reports."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n, self.n_reports, loss = 0, 0, mask_learning.loss_of
        self.last = 10**9

        def counting(*arguments: Any) -> Any:
            self.n += 1
            return loss(*arguments)

        monkeypatch.setattr(mask_learning, "loss_of", counting)

    def report(self, stage: str, share: float) -> None:
        self.n_reports += 1
        if self.n_reports > self.last:
            raise Cancelled


def test_however_it_is_cut_off_it_comes_to_the_same(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = asked(model, "A", "object", epochs=3, penalties=(0.01, 0.5))
    expected = parts_of(request)
    steps, parts, n_runs, seen = Steps(monkeypatch), [], 0, []
    while not parts:
        n_runs, steps.n_reports, steps.last = n_runs + 1, 0, 14
        with suppress(Cancelled):
            parts = [
                *METHOD.work(request, (), steps.report, lambda place: Folder(tmp_path / str(place)))
            ]
        if curve := curve_so_far(Folder(tmp_path / "0")):
            seen.append(len(curve.losses))
            assert curve.checks == expected[0].curve.checks[: len(curve.checks)]
    assert n_runs > 3
    assert seen == sorted(seen)
    assert parts == expected
    assert steps.n < 2 * 2 * request.n_steps, "what was learnt is not learnt again"


@pytest.mark.parametrize("wrong", [{}, {"mask": 1}, {"right": 3}, {"extra": 1}, {"losses": 40}])
def test_what_was_kept_of_something_else_is_not_taken(
    model: str, tmp_path: Path, wrong: dict[str, int]
) -> None:
    request = asked(model, "A", "object", epochs=1)
    expected = parts_of(request, tmp_path)
    kept = dict(checkpoints.state(Folder(tmp_path / "0"), "mask"))
    for name, n in wrong.items():
        kept[name] = torch.zeros(n, dtype=kept["mask"].dtype)
    checkpoints.keep_state(Folder(tmp_path / "0"), "mask", kept if wrong else {})
    assert parts_of(request, tmp_path) == expected


def test_nothing_is_shown_of_what_has_not_begun(tmp_path: Path) -> None:
    assert curve_so_far(Folder(tmp_path)) is curve_so_far(None) is None


def test_random_heads_are_some_of_them() -> None:
    heads = [Head(0, index) for index in range(5)]
    drawn = random_heads(heads, 2, 40, seed=3)
    assert len(drawn) == 40
    assert all(len({*some}) == 2 and {*some} <= {*heads} for some in drawn)
    assert {head for some in drawn for head in some} == {*heads}
    assert drawn == random_heads(heads, 2, 40, seed=3)
    assert drawn != random_heads(heads, 2, 40, seed=4)
    assert random_heads(heads, 0, 40, seed=3) == random_heads(heads, 5, 40, seed=3) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group": "Z"}, "no group “Z”. Choose of A, B, C, D"),
        ({"desideratum": "colour"}, "no desideratum “colour”. Choose of object"),
        ({"penalties": ()}, "A penalty is a number"),
        ({"penalties": (-1.0,)}, "A penalty is a number"),
        ({"penalties": (0.1, 0.1)}, "twice"),
        ({"rate": 0.0}, "learning rate"),
        ({"epochs": 0}, "one epoch"),
        ({"batch": 0}, "one pair in a batch"),
        ({"training": 0.0}, "Ask for more pairs"),
        ({"training": 0.8, "validation": 0.4}, "Ask for more pairs"),
        ({"prompts": Prompts(ENTITY_TRACKING, 3, 0, (3,))}, "Ask for more pairs"),
        ({"circuit": Circuit.of(ENTITY_TRACKING, {})}, "has no heads in group A"),
    ],
)
def test_what_cannot_be_asked_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        replace(asked("base", "A", "object"), **changes)


def test_another_task_s_circuit_is_not_taken() -> None:
    with pytest.raises(UserError, match="is for"):
        replace(
            asked("base", "A", "object"),
            circuit=catalogue.circuit("base"),
            prompts=Prompts(IOI, 9, 0),
        )


def test_settings_name_what_is_not_the_paper_s() -> None:
    usual = DcmRequest("base", HEADS, FEW, "B", "position")
    assert METHOD.settings(usual) == "group B, “Position”, λ 0.01"
    other = replace(usual, among=Among.all, penalties=(0.0, 1.0), rate=0.05, epochs=4)
    assert (
        METHOD.settings(other) == "group B, “Position”, among all heads, λ 0 1, rate 0.05, epochs 4"
    )


@pytest.fixture
def command(model: str, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    file = Path(model) / "planted-circuit.json"
    file.write_text(HEADS.to_json())

    def run(*options: str) -> tuple[int, str, str]:
        few = ("--prompts", "48", "--boxes", "3", "--batch", "4")
        code = main(["dcm", model, "--circuit", str(file), *few, *options])
        return code, *capsys.readouterr()

    yield run
    loaded_models.unload(model)


def test_the_command_keeps_the_heads_as_a_circuit(
    command: Any, model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(catalogue, "ADDED_CIRCUITS", tmp_path)
    options = (
        "--group",
        "A",
        "--desideratum",
        "object",
        "--penalty",
        "0.01",
        "50",
        "--among",
        "all",
    )
    code, out, err = command(*options, "--epochs", "4", "--save", "objects")
    assert code == 0
    request = asked(model, "A", "object", penalties=(0.01, 50.0), among=Among.all, epochs=4)
    stored = studies.find(request)
    assert stored
    data = json.loads(out)
    assert data["parts"] == to_json(stored.parts)
    assert data["groups"]["A"] == [[*head] for head in planted.CIRCUIT["A"]]
    assert "λ 0.01, heads: L3.1, L3.3; chance: 0.333" in err
    assert "λ 50: not clearly more than with nothing patched" in err
    saved = catalogue.circuit("objects")
    assert saved == found_circuit(request, stored.parts[0], "objects")
    assert saved.provenance["desideratum"] == "object"
    assert saved.heads("A") == planted.CIRCUIT["A"]
    assert "stored" in command(*options, "--epochs", "4")[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--group", "B", "--desideratum", "smell"), "Choose of object, label, position"),
        (("--group", "Q", "--desideratum", "object"), "Choose of A, B, C, D"),
        (("--group", "B", "--desideratum", "object", "--training", "1"), "Ask for more pairs"),
    ],
)
def test_the_command_says_what_can_be_asked(
    command: Any, options: tuple[str, ...], message: str
) -> None:
    code, out, err = command(*options)
    assert (code, out) == (1, "")
    assert message in err
