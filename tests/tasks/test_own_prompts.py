"""Prompts of own tasks against all fillings, written out, and in a planted model."""

from __future__ import annotations

import re
from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from backend.core.errors import UserError
from backend.engine.path_patching.run_pairs import RunPairs
from backend.methods.discovery import discover
from backend.methods.stages import Criteria
from backend.tasks import registry
from backend.tasks.ioi import IOI
from backend.tasks.own.files import task_in
from backend.tasks.prompts import PromptSet
from backend.tasks.task import Task
from backend.tasks.written import written_as
from tests import planted_ioi, trained
from tests.own import FRUIT, IOI_FILE

FRUITS, NAMES = ("apple", "pear", "plum", "fig"), ("Ann", "Bo", "Cy")
WORDS = [*FRUITS, *NAMES, "eats", "the", "and", "sleeps", ".", "Fruit", ":"]
SENTENCE = re.compile(r"(\w+) eats the (\w+) and (\w+) sleeps \. Fruit :")


def word_tokenizer(*words: str) -> Any:
    vocabulary = {word: token for token, word in enumerate(["<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def said(tokenizer: Any, prompts: PromptSet, row: int) -> tuple[str, ...]:
    """The words of a prompt, its answer and its competitor."""
    found = SENTENCE.fullmatch(prompts.texts[row])
    assert found
    return *found.groups(), *map(tokenizer.decode, prompts.choice_ids[row].tolist())


FILLINGS = [
    (one, fruit, two, fruit, other)
    for one, two in product(NAMES, NAMES)
    for fruit, other in product(FRUITS, FRUITS)
    if one != two and fruit != other
]
"""All that the file allows, written out."""


def test_every_filling_that_is_allowed_comes_as_often() -> None:
    tokenizer, task = word_tokenizer(*WORDS), task_in(FRUIT.encode())
    for drawn in (task.sample(tokenizer, 3000, 1), task.reference(tokenizer, 3000, 1)):
        counts = Counter(said(tokenizer, drawn, row) for row in range(3000))
        assert counts.keys() == {*FILLINGS}
        assert chisquare([*counts.values()]).pvalue > 1e-4
    assert task.reference(tokenizer, 9, 1).texts != task.sample(tokenizer, 9, 1).texts
    assert task.note(tokenizer) == ""
    assert task.length() == 10 == task.sample(tokenizer, 1).input_ids.shape[1]


def test_a_counterfactual_changes_what_the_file_says_and_nothing_else() -> None:
    tokenizer, task = word_tokenizer(*WORDS), task_in(FRUIT.encode())
    prompts = task.sample(tokenizer, 400, 3)
    changed = task.counterfactual(tokenizer, prompts)
    for row in range(400):
        one, fruit, two, answer, other = said(tokenizer, prompts, row)
        new = said(tokenizer, changed, row)
        assert (new[0], new[2], new[4]) == (one, two, other)
        assert new[1] == new[3] not in (fruit, other)
        assert answer == fruit
    few = task.counterfactual(tokenizer, task.sample(tokenizer, 30, 3))
    assert few.texts == changed.texts[:30]
    assert task.counterfactual(tokenizer, prompts, 4).texts != changed.texts


def test_tokens_with_names_are_where_the_words_are() -> None:
    tokenizer, task = word_tokenizer(*WORDS), task_in(FRUIT.encode())
    prompts = task.sample(tokenizer, 20)
    for row in range(20):
        words = prompts.words(row)
        assert words[prompts.positions["fruit"][row]] in FRUITS
        assert words[prompts.positions["end"][row]] == ":"
        assert prompts.roles_of(row)[prompts.positions["fruit"][row]] == "fruit"
    assert (prompts.answer_ids == prompts.choice_ids[:, 0]).all()


def test_words_that_a_tokenizer_splits_are_left_out_and_told() -> None:
    known = task_in(FRUIT.encode())
    tokenizer = word_tokenizer(*(word for word in WORDS if word != "pear"))
    assert "leave out 1 of 4 words for “fruit”" in known.note(tokenizer)
    assert not any("pear" in text for text in known.sample(tokenizer, 200).texts)
    with pytest.raises(UserError, match=r"writes only 2 of 4 words for “fruit” .* 3 are needed"):
        known.sample(word_tokenizer(*(word for word in WORDS if word not in ("pear", "fig"))), 1)
    with pytest.raises(UserError, match="does not know the words of any sentence"):
        known.sample(word_tokenizer(*(word for word in WORDS if word != "eats")), 1)


def corpus(task: Task, apart: tuple[str, ...] = ()) -> list[str]:
    """Texts with every word of the shipped tasks, often enough to be one token each."""
    words = re.findall(
        r"[A-Za-z]+",
        " ".join(path.read_text() for path in [registry.own_tasks().files[task.name]]),
    )
    return 3 * [f" {word}" for word in words if word not in apart] + ["0 1 2 3 4 5 6 7 8 9"]


@pytest.mark.parametrize("style", trained.STYLES)
def test_the_capitals_that_ship_are_right_in_every_style(style: str) -> None:
    task = registry.task_named("capitals")
    capitals = dict(re.findall(r'^(\w+) = "(\w+)"$', registry.own_tasks().files["capitals"]
                               .read_text(), re.M))  # fmt: skip
    tokenizer = trained.STYLES[style](corpus=corpus(task))
    prompts = task.sample(tokenizer, 60, 2)
    changed = task.counterfactual(tokenizer, prompts)
    for row, text in enumerate(prompts.texts):
        country = re.search(r"capital of (\w+) is", text)[1]  # type: ignore[index]
        right, wrong = (tokenizer.decode([each]).strip() for each in prompts.choice_ids[row])
        assert right == capitals[country]
        assert wrong in {*capitals.values()} - {right}
        assert tokenizer(f"{text} {right}")["input_ids"][: len(prompts.input_ids[row]) + 1] == [
            *prompts.input_ids[row],
            prompts.answer_ids[row],
        ]
        assert prompts.words(row)[prompts.positions["country"][row]] == country
        other = re.search(r"capital of (\w+) is", changed.texts[row])[1]  # type: ignore[index]
        assert other != country
        assert changed.texts[row] == text.replace(country, other)


@pytest.mark.parametrize("digits_apart", [True, False])
def test_later_years_are_later_whether_digits_are_one_token_or_two(digits_apart: bool) -> None:
    task = registry.task_named("greater-than")
    letters = [*"0123456789"] if digits_apart else [f"{n:02d}" for n in range(100)]
    names = re.findall(r"[A-Za-z]+", registry.own_tasks().files["greater-than"].read_text())
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys(["<unk>", *letters, *names]))}
    of = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    size = 1 if digits_apart else 2
    of.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(rf"\d{{{size}}}"), "isolated"),
        ]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=of, unk_token="<unk>")
    prompts = task.sample(tokenizer, 200)
    for each in (prompts, task.counterfactual(tokenizer, prompts)):
        for row, text in enumerate(each.texts):
            century, start, again = re.search(r"(\d\d)(\d\d) to the year (\d\d)$", text).groups()  # type: ignore[union-attr]
            later, earlier = (tokenizer.decode([token]) for token in each.choice_ids[row])
            assert century == again
            # The first digit of a wrong ending is wrong, whatever follows it.
            assert int(earlier.ljust(2, "9")) < int(start) < int(later.ljust(2, "9"))
            assert each.words(row)[each.positions["start"][row]] == start[:size]


def test_path_patching_finds_the_planted_circuit_in_an_own_task() -> None:
    task, tokenizer = task_in(IOI_FILE), planted_ioi.tokenizer()
    criteria = Criteria({key: len(heads) for key, heads in planted_ioi.CIRCUIT.items()})
    prompts = task.sample(tokenizer, 40)
    pairs = RunPairs(planted_ioi.model(), prompts, task.counterfactual(tokenizer, prompts))
    found = discover(pairs, criteria).circuit(criteria, "found", {})
    assert found.nodes == {(key, head) for key, of in planted_ioi.CIRCUIT.items() for head in of}


def test_an_own_task_writes_the_prompts_that_the_built_in_one_does() -> None:
    own, tokenizer = task_in(IOI_FILE), planted_ioi.tokenizer()
    skeleton = re.compile(r"(\w+) (\w+) and (\w+) (.*), (\w+) (.*)")

    def forms(prompts: PromptSet) -> Counter[Any]:
        counts: Counter[Any] = Counter()
        for row, text in enumerate(prompts.texts):
            opening, first, second, _, third, _ = skeleton.fullmatch(text).groups()  # type: ignore[union-attr]
            answer, other = (tokenizer.decode([each]) for each in prompts.choice_ids[row])
            names = [first, second, third, answer, other]
            at = {name: int(prompts.positions[name][row]) for name in own.edge_tokens}
            at |= {name: int(prompts.positions[name][row]) for name in ("io", "s1", "s2")}
            counts[(opening, *map(names.index, names), *sorted(at.items()))] += 1
        return counts

    for purpose in ("sample", "reference"):
        ours, theirs = (forms(getattr(task, purpose)(tokenizer, 800)) for task in (own, IOI))
        assert ours.keys() == theirs.keys()
    ours, theirs = (
        forms(task.counterfactual(tokenizer, task.sample(tokenizer, 800))) for task in (own, IOI)
    )
    assert ours.keys() == theirs.keys()
    assert np.isclose(sum(ours.values()), sum(theirs.values()))


def test_a_prompt_in_one_s_own_words_is_read_as_the_task_would_write_it() -> None:
    for task, tokenizer in (
        (task_in(FRUIT.encode()), word_tokenizer(*WORDS)),
        (task_in(IOI_FILE), planted_ioi.tokenizer()),
    ):
        prompts = task.sample(tokenizer, 20)
        for row, text in enumerate(prompts.texts):
            read, known = task.read(text), written_as(prompts, row, tokenizer)
            assert read is not None
            assert (read.answer, {*read.marks}) == (known.answer, {*known.marks})
            assert read.answer not in read.competitors
    capitals = registry.task_named("capitals")
    told = capitals.read("My friend Zoe the Third says that the capital of Peru is the city of")
    assert told is not None
    assert told.answer == "Lima"
    assert told.competitors == ("Paris",)
    assert capitals.read("My friend Zoe says that the capital of Mars is the city of") is None
    assert capitals.read("The capital of Peru is") is None
    # Which later year is right, no words tell.
    assert registry.task_named("greater-than").read(
        "The war lasted from the year 1732 to the year 17"
    ) is None  # fmt: skip
