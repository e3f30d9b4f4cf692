"""How prompts of entity tracking are written, and where their words stand (NumPy and text)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.core.errors import UserError
from backend.tasks.prompts import Ints, PromptSet, distinct_words
from backend.tasks.task import Task
from backend.tasks.vocabulary import Vocabulary, tokenized, tokens_at

WordTable = NDArray[np.str_]
_SEGMENT = "the {object} is in Box {label}"


@dataclass(frozen=True)
class Wording:
    """How a prompt is written: unless told otherwise, as the task's own.

    segment, queried: what is said of a box, and of the one at the query's index; joint: between
    them; start, end: around them.
    """

    segment: str = _SEGMENT
    queried: str = _SEGMENT
    joint: str = ", "
    start: str = ""
    end: str = ""


PLAIN = Wording()


@dataclass(frozen=True, eq=False)
class Boxes:
    """What prompts say: objects, labels [n, n_boxes] in order; query [n], the index of the box
    asked for; query_labels [n], which label is; previous [n], the box read by stage D."""

    objects: WordTable
    labels: WordTable
    query: Ints
    query_labels: WordTable
    previous: Ints


def draw_words(
    rng: np.random.Generator,
    words: Mapping[str, int],
    kind: str,
    n: int,
    k: int,
    excluded: WordTable | None = None,
) -> WordTable:
    """`n` rows of `k` distinct words, none of them among the row's `excluded` ones: [n, k].

    Raises UserError when there are too few.
    """
    needed = k + (0 if excluded is None else excluded.shape[1])
    if len(words) < needed:
        raise UserError(
            f"This tokenizer writes only {len(words)} of the {kind} as one token each, and "
            f"{needed} are needed. Choose fewer boxes or another model."
        )
    return distinct_words(rng, words, n, k, excluded)


def pick(table: Any, column: Ints) -> Any:
    """What each row [n, k] has in its own column [n]: [n]."""
    return np.take_along_axis(table, column[:, None], axis=1)[:, 0]


def encode(
    tokenizer: Any,
    vocabulary: Vocabulary,
    task: Task,
    boxes: Boxes,
    seed: int,
    wording: Wording = PLAIN,
) -> PromptSet:
    """The prompts as tokens, every object and label located.

    Raises UserError when the tokenizer gives prompts of different lengths, or splits their words.
    """
    objects, labels, query = boxes.objects, boxes.labels, boxes.query
    n, n_boxes = objects.shape
    told = zip(objects.tolist(), labels.tolist(), query.tolist(), boxes.query_labels, strict=True)
    written = [_written(wording, *row) for row in told]
    texts = tuple(text for text, _ in written)
    rows = tokenized(tokenizer, texts)
    if len({len(ids) for ids, _ in rows}) != 1:
        raise UserError(
            "This tokenizer gives prompts of different lengths, so their positions do not align. "
            "Choose a model whose tokenizer writes every object and label as one token."
        )
    input_ids = np.array([ids for ids, _ in rows], dtype=np.int64)
    spans = np.array([characters for _, characters in rows], dtype=np.int64)
    places = tokens_at(spans, np.array([ends for _, ends in written]))
    object_ids = _ids(objects, vocabulary.objects)
    asked_ids = _ids(boxes.query_labels, vocabulary.labels)[:, None]
    word_ids = np.hstack([object_ids, _ids(labels, vocabulary.labels), asked_ids])
    aligned = (
        (np.take_along_axis(input_ids, places, 1) == word_ids).all()
        and (wording != PLAIN or (places == places[0]).all())
        and (spans[:, -1, 1] == [len(text) for text in texts]).all()
    )
    if not aligned:
        raise UserError(
            "This tokenizer splits the prompt's words in a way that moves the named positions. "
            "Choose a model whose tokenizer writes every object and label as one token."
        )
    object_places, label_places = places[:, :n_boxes], places[:, n_boxes:-1]
    positions = {
        "last": np.full(n, input_ids.shape[1] - 1),
        "query_label": places[:, -1],
        "prev_query_label": pick(label_places, boxes.previous),
        "correct_object": pick(object_places, query),
    }
    return PromptSet(
        task,
        texts,
        input_ids,
        answer_ids=pick(object_ids, query),
        choice_ids=object_ids,
        positions=positions,
        roles={
            "object": object_places,
            "label": label_places,
            **{name: tokens[:, None] for name, tokens in positions.items()},
        },
        spans=spans,
        drawn={
            "objects": objects,
            "labels": labels,
            "query": query,
            "query_labels": boxes.query_labels,
        },
        seed=seed,
    )


def _written(
    wording: Wording, objects: list[str], labels: list[str], query: int, asked: str
) -> tuple[str, list[int]]:
    """A prompt, and the last character of each of its objects, its labels and the label asked."""
    text = wording.start
    ends: dict[str, list[int]] = {"object": [], "label": []}
    for place, words in enumerate(zip(objects, labels, strict=True)):
        text += wording.joint if place else ""
        form = wording.queried if place == query else wording.segment
        for literal, field, *_ in Formatter().parse(form):
            text += literal
            if field:
                text += words[field == "label"]
                ends[field].append(len(text) - 1)
    text += f"{wording.end}. Box {asked}"
    asked_at = len(text) - 1
    return f"{text[0].upper()}{text[1:]} contains the", [*ends["object"], *ends["label"], asked_at]


def _ids(words: WordTable, vocabulary: Mapping[str, int]) -> Ints:
    return np.vectorize(vocabulary.__getitem__, otypes=[np.int64])(words)
