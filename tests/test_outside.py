"""A method and a task of one's own, registered from outside: no file of the project is changed."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.commands.cli import main
from backend.core.arguments import whole
from backend.core.progress import Plan, Report, Step, silent, step_of
from backend.core.statistics import Estimate, wilson
from backend.methods import registry as methods
from backend.methods.asking import loaded
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import scale_of
from backend.studies import studies
from backend.tasks import registry as tasks
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts, PromptSet, generators
from backend.tasks.task import Group, Position, Role, Task, Words
from backend.tasks.vocabulary import tokenized
from tests import tiny

LETTERS = np.array([*"ABCDEFGH"])


def encoded(tokenizer: Any, letters: NDArray[Any], seed: int) -> PromptSet:
    """“A , B , C”, to be followed by “C”, out of letters [n, 3]."""
    texts = tuple(" , ".join(row) for row in letters.tolist())
    rows = tokenized(tokenizer, texts)
    ids = np.array([ids for ids, _ in rows])
    named = {name: np.full(len(texts), token) for name, token in (("first", 0), ("end", 4))}
    return PromptSet(
        ECHO,
        texts,
        ids,
        answer_ids=ids[:, 4].copy(),
        choice_ids=ids[:, [4, 0]],
        positions=named,
        roles={name: tokens[:, None] for name, tokens in named.items()},
        spans=np.array([spans for _, spans in rows]),
        drawn={},
        seed=seed,
    )


def drawn(purpose: str) -> Any:
    """Prompts of three letters, independent of those for another purpose."""

    def sample(tokenizer: Any, n: int, seed: int = 0) -> PromptSet:
        (rng,) = generators(seed, purpose, 1)
        return encoded(tokenizer, rng.permuted(np.tile(LETTERS, (n, 1)), axis=1)[:, :3], seed)

    return sample


def counterfactual(tokenizer: Any, prompts: PromptSet, seed: int | None = None) -> PromptSet:
    return drawn("echo, changed")(tokenizer, len(prompts), prompts.seed)


def group(key: str, position: str, component: Any, *into: str) -> Group:
    return Group(key, f"Group {key}", position, component, into, "#D55E00", "circle", 2, "A toy.")


ECHO = Task(
    name="echo",
    title="The last letter once more",
    source="these tests",
    text="A model that says the last word again answers right.",
    words=Words("the last letter", "the first letter", "the first letter"),
    positions=(
        Position("first", "at the first letter", "first “{}”"),
        Position("end", "at the last letter", "end “{}”", tail=1),
    ),
    groups=(
        group("OUT", "end", "logits"),
        group("ASK", "end", "q", "OUT"),
        group("TELL", "first", "v", "OUT"),
        group("BOTH", "first", "k", "ASK", "TELL"),
        group("WIDE", "first", "v", "OUT", "BOTH"),
    ),
    roles=(Role("first", "first letter", "TELL"), Role("end", "last letter", "OUT")),
    options=(),
    sample=drawn("echo"),
    counterfactual=counterfactual,
    reference=drawn("echo, reference"),
    length=lambda: 5,
    note=lambda tokenizer: "",
)
"""Its groups are no chain: two ways lead from the last to the first, and one goes past both."""


@dataclass(frozen=True)
class TopRequest:
    """How often the right answer is among so many."""

    model: str
    prompts: Prompts
    top: int = 5


@dataclass(frozen=True)
class TopReport:
    """The share of prompts on which it is."""

    share: Estimate


def plan(request: TopRequest) -> Plan:
    return [[Step("Asking", scale_of(request.model, request.prompts).runs(request.prompts.n))]]


def work(request: TopRequest, _: Finished, report: Report, __: Unfinished) -> Iterator[TopReport]:
    model = loaded(request.model, report, plan(request), 0)
    from backend.methods.answering import whole_answers

    told = step_of(report, plan(request), 0, 0)
    answers = whole_answers(model, request.prompts.sample(model.tokenizer), told)
    yield TopReport(wilson(answers.rank <= request.top))


def rows(request: TopRequest, _: int, part: TopReport) -> Iterator[Figure]:
    yield Figure(request.model, f"among the first {request.top}", part.share)


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--top", type=whole(1, 100), default=5, help="how many (default: 5)")


TOP = Method(
    "top",
    "Among the first",
    TopRequest,
    lambda _: (TopReport,),
    plan,
    work,
    rows,
    lambda request: f"first {request.top}",
    command=Command("how often the right answer is near", "top base --top 3", 50, arguments),
)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    methods.register(TOP)
    tasks.register(ECHO)
    yield
    del methods.METHODS[TOP.name], tasks.TASKS[ECHO.name]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random one whose large embeddings read out what they wrote: it often says the last word."""
    folder = tmp_path_factory.mktemp("models") / "tied"
    of = tiny.llama(2, tie_word_embeddings=True).requires_grad_(False)
    of.model.embed_tokens.weight *= 20
    of.save_pretrained(folder)
    tiny.word_tokenizer().save_pretrained(folder)
    return str(folder)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out), err


def test_a_method_of_one_s_own_is_stored_and_found_again(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = TopRequest(model, Prompts(ECHO, 20, 0), 3)
    (report,) = studies.run(request, silent)
    assert report.share.n == 20
    monkeypatch.setattr("backend.methods.answering.whole_answers", None)
    assert [*studies.run(request, silent)] == [report]
    assert methods.title_of(request).startswith(f"Among the first, first 3: {model}")


def test_it_is_on_the_command_line(capsys: pytest.CaptureFixture[str], model: str) -> None:
    asked = "top", model, "--top", "3", "--prompts", "20"
    data, err = told(capsys, *asked, "--task", "echo")
    assert (data["header"]["method"], data["header"]["request"]["top"]) == ("top", 3)
    assert f"among the first 3: {data['parts'][0]['share']['value']:.3f}" in err
    again, err = told(capsys, *asked, "--task", "echo")
    assert again == data
    assert "stored: measured on" in err
    told(capsys, *asked, "--boxes", "3")  # and on a task that was there before


def test_groups_that_are_no_chain_are_discovered(
    capsys: pytest.CaptureFixture[str], model: str, tmp_path: Path
) -> None:
    data, _ = told(capsys, "discover", model, "--task", "echo", "--prompts", "20", "--fdr", "1")
    found = data["provenance"]
    kept = {key: [each["head"] for each in heads] for key, heads in found["heads"].items()}
    assert all(kept[each.key] for each in ECHO.groups)
    for each in ECHO.groups:
        fed = [head for key in each.into for head in kept[key]]
        assert found["receivers"][each.key] == [*map(list, dict.fromkeys(map(tuple, fed)))]
    file = tmp_path / "found.json"
    file.write_text(json.dumps(data))
    assert Circuit.from_json(file.read_text()).task is ECHO
    edges, _ = told(
        capsys, "edges", model, "--circuit", str(file), "--task", "echo", "--prompts", "20"
    )
    sent = {(edge["group"], edge["receiver"] is None) for edge in edges["parts"][0]["edges"]}
    assert ("OUT", True) in sent
    assert ("WIDE", False) in sent
