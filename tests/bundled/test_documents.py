import re

import numpy as np
import pytest

from backend.bundled.curriculum import CURRICULUM, FINE_TUNES
from backend.bundled.documents import (
    DIALOGUE,
    NUMBERS_IN_BOXES,
    NUMBERS_IN_VARIABLES,
    OBJECTS_IN_BOXES,
    OBJECTS_IN_VARIABLES,
    SUMS_IN_BOXES,
    Part,
    Query,
    additions,
    entity_documents,
)
from backend.bundled.vocabulary import make_tokenizer, words
from backend.tasks.entity_tracking import sample_prompts
from backend.tasks.vocabulary import object_words

KINDS = (
    OBJECTS_IN_BOXES,
    NUMBERS_IN_BOXES,
    NUMBERS_IN_VARIABLES,
    OBJECTS_IN_VARIABLES,
    SUMS_IN_BOXES,
    DIALOGUE,
)
SEGMENT = re.compile(r"(?:[Tt]he|value) (\w+) (?:is in Box|goes to variable) (\w)")
ANSWERS = {
    Query.lookup: re.compile(
        r"(?:Box|variable) (\w) (?:contains the|holds value) (\w+)(?: \+ (\d+) = (\d+))? \.$"
    ),
    Query.label_to_number: re.compile(r"(?:Box|variable) (\w) is number (\d+) \.$"),
    Query.number_to_item: re.compile(r"number (\d+) (?:contains the|holds value) (\w+) \.$"),
    Query.index: re.compile(r"index (\w) (\d+) \.$"),
}
CASES = [(kind, query) for kind in KINDS for query in kind.queries]


def texts_of(documents):
    return [" ".join(words()[token] for token in row) for row in documents.input_ids]


@pytest.mark.parametrize(("kind", "query"), CASES, ids=lambda each: getattr(each, "name", None))
def test_the_answers_follow_from_the_context(kind, query):
    documents = entity_documents(kind, query, 5, 40, np.random.default_rng(0))
    for text in texts_of(documents):
        held = SEGMENT.findall(text)
        assert len({item for item, _ in held}) == len({label for _, label in held}) == 5
        labels = [label for _, label in held]
        asked, answer, *sums = ANSWERS[query].search(text).groups()
        if query is Query.number_to_item:
            assert held[int(asked) - 1][0] == answer
        elif query is Query.lookup:
            assert held[labels.index(asked)][0] == answer
        else:
            assert labels.index(asked) + 1 == int(answer)
        if sums and sums[0]:
            assert int(answer) + int(sums[0]) == int(sums[1])


def test_additions_are_right():
    for text in texts_of(additions(4, 20, np.random.default_rng(0))):
        sums = re.findall(r"(\d+) \+ (\d+) = (\d+)", text)
        assert len(sums) == 4
        assert all(int(a) + int(b) == int(c) for a, b, c in sums)


@pytest.mark.parametrize(("kind", "query"), CASES, ids=lambda each: getattr(each, "name", None))
def test_every_answer_follows_a_token_that_may_work(kind, query):
    documents = entity_documents(kind, query, 3, 4, np.random.default_rng(0))
    before_answers = [documents.parts[column - 1] for column in np.flatnonzero(documents.is_answer)]
    assert before_answers
    assert set(before_answers) <= {Part.answering, Part.free}
    assert documents.parts.count(Part.context_label) == 3
    assert len(documents.parts) == len(documents.is_answer) == documents.input_ids.shape[1]


def test_kinds_are_parallel():
    rng = np.random.default_rng(0)
    for query in Query:
        lengths = {
            entity_documents(kind, query, 4, 2, rng).input_ids.shape[1]
            for kind in (OBJECTS_IN_BOXES, NUMBERS_IN_BOXES, NUMBERS_IN_VARIABLES)
        }
        assert len(lengths) == 1


def test_lookups_in_boxes_are_worded_like_the_task():
    tokenizer = make_tokenizer()
    prompts = sample_prompts(tokenizer, 3)
    documents = entity_documents(OBJECTS_IN_BOXES, Query.lookup, 7, 3, np.random.default_rng(0))
    ours, task = documents.input_ids[:, : prompts.input_ids.shape[1]], prompts.input_ids
    fixed = (ours == ours[0]).all(0) & (task == task[0]).all(0)
    assert (ours[0, fixed] == task[0, fixed]).all()
    assert fixed.sum() == task.shape[1] - 7 * 2 - 1


@pytest.mark.parametrize("recipe", FINE_TUNES[:2], ids=lambda recipe: recipe.name)
def test_arithmetic_fine_tunes_never_see_an_object_in_a_box(recipe):
    rng = np.random.default_rng(0)
    objects = set(object_words())
    for _ in range(60):
        for text in texts_of(recipe.phase.mixture.draw(4, rng)):
            assert "Box" not in text or not objects & set(text.split())


def test_mixtures_draw_only_what_they_name():
    rng = np.random.default_rng(0)
    for phase in CURRICULUM:
        segments = {phase.mixture.draw(2, rng).parts.count(Part.context_label) for _ in range(30)}
        assert segments <= {0, *phase.mixture.sizes}


def test_the_same_seed_draws_the_same_documents():
    mixture = CURRICULUM[-1].mixture
    first, second = (mixture.draw(8, np.random.default_rng(5)).input_ids for _ in range(2))
    assert (first == second).all()
