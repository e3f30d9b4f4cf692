"""Prompts of one's own: rows that are read, rows that are told, and what methods get of them."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.progress import silent
from backend.core.serialize import from_json, to_json
from backend.engine.path_patching.run_pairs import RunPairs
from backend.methods.discovery import discover
from backend.methods.registry import METHODS
from backend.methods.search import SearchRequest
from backend.methods.stages import Criteria
from backend.tasks import registry
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING, sample_prompts
from backend.tasks.ioi import IOI
from backend.tasks.own.files import task_in
from backend.tasks.prompts import Prompts, PromptSet
from backend.tasks.sets import files
from backend.tasks.sets.rows import Misfit, Row, known_tokens, needed_tokens, rows_of
from backend.tasks.task import Task
from tests import planted_ioi
from tests.circuits import TOKENIZER
from tests.own import FRUIT
from tests.tasks.test_own_prompts import WORDS, word_tokenizer

FRUITS = task_in(FRUIT.encode())
GOOD = {
    "clean": "Ann eats the [plum|fruit] and Bo sleeps . Fruit :",
    "answer": "plum",
    "competitors": ["fig"],
    "counterfactual": "Ann eats the fig and Bo sleeps . Fruit :",
}


def jsonl(*rows: Any) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def row(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**GOOD, **changes}.items() if value is not None}


def test_marks_words_csv_and_jsonl_say_the_same() -> None:
    plain = GOOD["clean"].replace("[plum|fruit]", "plum")
    by_word = row(clean=plain, positions={"fruit": "plum"})
    by_column = row(clean=plain, fruit="plum#1", competitors="fig")
    text = io.StringIO()
    writer = csv.DictWriter(text, [*by_column])
    writer.writeheader()
    writer.writerow(by_column)
    (expected,) = rows_of(jsonl(GOOD), FRUITS)
    assert expected == Row(1, plain, "plum", ("fig",), GOOD["counterfactual"], {"fruit": (13, 17)})
    for content in (jsonl(by_word), jsonl(by_column), text.getvalue().encode()):
        assert rows_of(content, FRUITS) == [expected]
    sentence = row(clean=None, answer=None, sentence=f"{GOOD['clean']} plum.")
    assert rows_of(jsonl(sentence), FRUITS) == [expected]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"clean": None}, "it has no “clean”"),
        ({"clean": 3}, "its “clean” is no line"),
        ({"clean": "a\nb"}, "its “clean” is no line"),
        ({"clean": " [plum|fruit] "}, "has a space at an end"),
        ({"clean": "Ann eats"}, "does not say where “fruit” is: mark it as [word|fruit]"),
        ({"clean": "[plum|fruit] [fig|fruit]"}, "it marks “fruit” twice"),
        ({"clean": "[plum|fruit] [is|what]"}, "it marks “what”; there are fruit"),
        ({"answer": None}, "it has no “answer”"),
        ({"competitors": None}, "its “competitors” are no words"),
        ({"competitors": [1]}, "its “competitors” are no words"),
        ({"competitors": " | "}, "its “competitors” are no words"),
        ({"colour": "red"}, "it has an unknown field “colour”"),
        ({"positions": "plum"}, "its “positions” are no object"),
        ({"fruit": "pear"}, "its word “pear” for “fruit” is not in the prompt"),
        ({"clean": "plum plum", "fruit": "plum"}, "is there 2 times: write which as “plum#1”"),
        ({"clean": "plum plum", "fruit": "plum#3"}, "is there 2 times only"),
        ({"counterfactual": ""}, "its “counterfactual” is no line"),
    ],
)
def test_a_row_that_cannot_be_read_is_told_and_the_rest_is_used(
    changes: dict[str, Any], reason: str
) -> None:
    first, bad, last = rows_of(jsonl(GOOD, row(**changes), GOOD), FRUITS)
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert isinstance(bad, Misfit)
    assert bad.number == 2
    assert reason in bad.reason


def test_what_is_no_row_at_all_is_told() -> None:
    read = rows_of(jsonl(GOOD) + b'\n{"clean": \n[1]\n', FRUITS)
    assert [type(each) for each in read] == [Row, Misfit, Misfit]
    for content, message in (
        (b"\xff{", "not text in UTF-8"),
        (b"", "no prompt in it"),
        (b"clean,answer\n", "no prompt in it"),
        (b'clean\n"a\n', "not CSV"),
        (b"clean\n" + b"x\n" * 5001, "5001 prompts, and 5000 at most"),
    ):
        with pytest.raises(UserError, match=message):
            rows_of(content, FRUITS)


def ready() -> Task:
    registry.add_task(FRUIT.encode())
    return registry.task_named("fruit")


def test_rows_that_a_tokenizer_cannot_use_are_told_in_the_note() -> None:
    tokenizer = word_tokenizer(*WORDS)
    content = jsonl(
        GOOD,
        row(answer="banana"),
        row(counterfactual="Ann eats the fig ."),
        row(clean="Ann eats the [plum|fruit] .", counterfactual="Ann eats the fig ."),
        row(competitors=["plum"]),
        row(competitors=["fig", "pear"]),
        row(colour=1),
        row(answer="apple"),
    )
    task, misfits = registry.keep_prompts(ready(), "mine", content)
    assert [each.number for each in misfits] == [7]
    prompts = task.sample(tokenizer, 100)
    assert sorted(prompts.drawn["row"].tolist()) == [1, 8]
    note = task.note(tokenizer)
    assert "“mine” has 2 prompts for it; means are over the counterfactuals" in note
    assert "2 are few" in note
    assert "6 of 8 rows are left out" in note
    for told in (
        "row 2: its answer “banana” is not one token",
        "row 3: its counterfactual has 5 tokens, and its prompt 10",
        "row 4: its prompt has 5 tokens, and most have 10",
        "row 5: two of its answer and competitors are the same",
        "row 6: it has 2 competitors, and most have 1",
        "and 1 more",
    ):
        assert told in note
    with pytest.raises(UserError, match=r"No row of “mine” can be used .*row 1: its answer"):
        task.sample(word_tokenizer("Ann"), 1)


def as_rows(prompts: PromptSet, changed: PromptSet, tokenizer: Any) -> list[dict[str, Any]]:
    """What a set would say of these prompts, by words that are marked."""
    rows = []
    for place, text in enumerate(prompts.texts):
        named = {name: prompts.positions[name][place] for name in known_tokens(prompts.task)
                 if name in prompts.positions}  # fmt: skip
        clean, start = "", 0
        for token in sorted({*named.values()}):
            name = next(each for each in named if named[each] == token)
            a, b = prompts.spans[place, token]
            a += len(text[a:b]) - len(text[a:b].lstrip())
            clean += f"{text[start:a]}[{text[a:b]}|{name}]"
            start = b
        words = [tokenizer.decode([token]).strip() for token in prompts.choice_ids[place]]
        rows.append(
            {
                "clean": clean + text[start:],
                "counterfactual": changed.texts[place],
                "answer": words[0],
                "competitors": words[1:],
            }
        )
    return rows


def test_rows_of_the_task_s_own_prompts_give_these_prompts_back() -> None:
    tokenizer = planted_ioi.tokenizer()
    prompts = IOI.sample(tokenizer, 40)
    changed = IOI.counterfactual(tokenizer, prompts)
    content = jsonl(*as_rows(prompts, changed, tokenizer))
    task, misfits = registry.keep_prompts(IOI, "copied", content)
    assert misfits == ()
    found = task.sample(tokenizer, 40, 5)
    others = task.counterfactual(tokenizer, found)
    order = found.drawn["row"] - 1
    assert sorted(order.tolist()) == [*range(40)]
    for ours, theirs in ((found, prompts), (others, changed)):
        assert ours.texts == tuple(theirs.texts[place] for place in order)
        assert np.array_equal(ours.input_ids, theirs.input_ids[order])
        assert np.array_equal(ours.spans, theirs.spans[order])
    assert np.array_equal(found.choice_ids, prompts.choice_ids[order])
    for name in (*needed_tokens(IOI), "end", "io"):
        assert np.array_equal(found.positions[name], prompts.positions[name][order])
    few = task.sample(tokenizer, 7, 5)
    assert few.texts == found.texts[:7]
    assert task.counterfactual(tokenizer, few).texts == others.texts[:7]
    reference = task.reference(tokenizer, 500, 5)
    assert sorted(reference.texts) == sorted(changed.texts)
    criteria = Criteria({key: len(heads) for key, heads in planted_ioi.CIRCUIT.items()})
    circuit = discover(RunPairs(planted_ioi.model(), found, others), criteria).circuit(
        criteria, "found", {}
    )
    assert circuit.nodes == Circuit.of(IOI, planted_ioi.CIRCUIT).nodes
    assert Circuit.from_json(circuit.to_json()).task is IOI
    circuit.check_task(IOI)


def test_a_set_of_the_authors_form_is_read_and_its_rows_are_each_other_s_counterfactuals() -> None:
    prompts = sample_prompts(TOKENIZER, 60, n_boxes=3)
    answers = [TOKENIZER.decode([token]).strip() for token in prompts.answer_ids]
    content = jsonl(
        *(
            {"sentence": f"{text} {word}."}
            for text, word in zip(prompts.texts, answers, strict=True)
        )
    )
    task, misfits = registry.keep_prompts(ENTITY_TRACKING, "theirs", content)
    assert misfits == ()
    found = task.sample(TOKENIZER, 60)
    order = found.drawn["row"] - 1
    assert np.array_equal(found.input_ids, prompts.input_ids[order])
    for name in (*ENTITY_TRACKING.position_names, "correct_object"):
        assert np.array_equal(found.positions[name], prompts.positions[name][order])
    assert [{*ids} for ids in found.choice_ids] == [{*ids} for ids in prompts.choice_ids[order]]
    assert np.array_equal(found.answer_ids, prompts.answer_ids[order])
    others = task.counterfactual(TOKENIZER, found)
    assert (others.answer_ids != found.answer_ids).all()
    for name in ENTITY_TRACKING.position_names:
        assert np.array_equal(others.positions[name], found.positions[name])
    assert "means are over its rows themselves" in task.note(TOKENIZER)


def test_a_lonely_row_needs_a_counterfactual() -> None:
    task, _ = registry.keep_prompts(ready(), "one", jsonl(row(counterfactual=None)))
    tokenizer = word_tokenizer(*WORDS)
    with pytest.raises(UserError, match=r"Row 1 of “one” has no counterfactual, .* Write a"):
        task.counterfactual(tokenizer, task.sample(tokenizer, 5))


def test_a_set_is_another_task_of_one_family_and_a_changed_one_another_again() -> None:
    base = ready()
    task, _ = registry.keep_prompts(base, "mine", jsonl(GOOD))
    assert (task.name, task.family) == ("fruit/mine", "fruit")
    assert task != base
    before = to_json(task)
    assert from_json(Task, before) == task
    registry.keep_prompts(base, "mine", jsonl(GOOD, GOOD))
    with pytest.raises(UserError, match="Measure it again"):
        from_json(Task, before)
    files.remove("mine")
    with pytest.raises(UserError, match="There is no task “fruit/mine”"):
        registry.task_named("fruit/mine")


def test_names_and_files_are_checked() -> None:
    for name in ("", "../up", "a/b", "x" * 65):
        with pytest.raises(UserError, match="cannot be used as a name"):
            registry.keep_prompts(IOI, name, jsonl(GOOD))
    with pytest.raises(UserError, match="None of 1 rows can be used: row 1: "):
        registry.keep_prompts(IOI, "mine", jsonl(GOOD))
    base = ready()
    registry.keep_prompts(base, "mine", jsonl(GOOD))
    path = files.ADDED / "mine.json"
    (files.ADDED / "bad.json").write_text("[]")
    (files.ADDED / "far.json").write_text(
        path.read_text().replace('"fruit": [13, 17]', '"fruit": [13, 1700]')
    )
    (files.ADDED / "lost.json").write_text(
        path.read_text().replace('"task": "fruit"', '"task": "x"')
    )
    found, complaints = registry.own_sets({"fruit": base})
    assert "fruit/mine" in found
    assert {"bad", "far", "lost"} <= complaints.keys()


def test_a_search_on_prompts_of_one_s_own_is_refused() -> None:
    content = jsonl(*({"clean": "[a|fruit] :", "answer": w, "competitors": "c"} for w in "bd"))
    registry.add_task(FRUIT.encode())
    task, _ = registry.keep_prompts(registry.task_named("fruit"), "mine", content)
    assert Prompts(task, 50, 0).n == 2
    request = SearchRequest("base", (("MV", Head(0, 0)),), Prompts(task, 50, 0))
    with pytest.raises(UserError, match=r"same for every seed. Search on fruit, which"):
        next(METHODS["search"].work(request, (), silent, lambda _: None))
