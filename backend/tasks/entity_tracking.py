"""Entity tracking: what is in the box asked for (Prakash et al., ICLR 2024, experimental setup).

`The apple is in Box F, the computer is in Box Q. Box F contains the` -> `apple`
Everything here is NumPy and text: no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.core.errors import UserError
from backend.tasks.prompts import Ints, Prompts, PromptSet, distinct_words, generators
from backend.tasks.task import Group, Option, Position, Role, Task, Words
from backend.tasks.vocabulary import Vocabulary, tokenized, usable_vocabulary

MIN_BOXES, MAX_BOXES = 2, 10
WordTable = NDArray[np.str_]


def sample_prompts(tokenizer: Any, n: int, seed: int = 0, n_boxes: int = 7) -> PromptSet:
    """`n` prompts with distinct objects, distinct labels and a uniform query.

    The first prompts of a seed are the same for every `n`. Raises UserError for a number of boxes
    outside 2 to 10 and for a tokenizer that leaves too few one-token objects or labels.
    """
    Prompts(ENTITY_TRACKING, n, seed, (n_boxes,))  # raises for those that there cannot be
    vocabulary = usable_vocabulary(tokenizer)
    objects_rng, labels_rng, query_rng = generators(seed, "prompts", 3)
    objects = _draw(objects_rng, vocabulary.objects, "objects", n, n_boxes)
    labels = _draw(labels_rng, vocabulary.labels, "labels", n, n_boxes)
    query = query_rng.integers(n_boxes, size=n)
    return _encode(tokenizer, vocabulary, objects, labels, query, _pick(labels, query), query, seed)


def counterfactual_prompts(
    tokenizer: Any, prompts: PromptSet, seed: int | None = None
) -> PromptSet:
    """The path-patching counterfactual of each prompt (Prakash et al., circuit discovery).

    Other objects, other labels and another query index; the label in the question is one that
    does not occur in the prompt. As it has no previous occurrence, `prev_query_label` is a random
    label of the prompt, which is what stage D patches from. The seed is the prompts' own unless
    given. Raises UserError when the tokenizer leaves too few words for two prompts.
    """
    seed = prompts.seed if seed is None else seed
    n, n_boxes = len(prompts), prompts.n_choices
    vocabulary = usable_vocabulary(tokenizer)
    objects_rng, labels_rng, query_rng = generators(seed, "counterfactual", 3)
    objects = _draw(
        objects_rng, vocabulary.objects, "objects", n, n_boxes, prompts.drawn["objects"]
    )
    drawn = _draw(labels_rng, vocabulary.labels, "labels", n, n_boxes + 1, prompts.drawn["labels"])
    labels, absent = drawn[:, :n_boxes], drawn[:, n_boxes]
    shift, previous = query_rng.integers((1, 0), (n_boxes, n_boxes), size=(n, 2)).T
    query = (prompts.drawn["query"] + shift) % n_boxes
    return _encode(tokenizer, vocabulary, objects, labels, query, absent, previous, seed)


def reference_prompts(tokenizer: Any, n: int, seed: int = 0, n_boxes: int = 7) -> PromptSet:
    """Prompts over which head outputs are averaged for a knock-out.

    They are drawn independently of the prompts of every seed, and ask for a label that does not
    occur in them (Prakash et al., circuit evaluation).
    """
    Prompts(ENTITY_TRACKING, n, seed, (n_boxes,))  # raises for those that there cannot be
    vocabulary = usable_vocabulary(tokenizer)
    objects_rng, labels_rng, query_rng = generators(seed, "reference", 3)
    objects = _draw(objects_rng, vocabulary.objects, "objects", n, n_boxes)
    drawn = _draw(labels_rng, vocabulary.labels, "labels", n, n_boxes + 1)
    query = query_rng.integers(n_boxes, size=n)
    labels, absent = drawn[:, :n_boxes], drawn[:, n_boxes]
    return _encode(tokenizer, vocabulary, objects, labels, query, absent, query, seed)


def _draw(
    rng: np.random.Generator,
    words: Mapping[str, int],
    kind: str,
    n: int,
    k: int,
    excluded: WordTable | None = None,
) -> WordTable:
    """`n` rows of `k` distinct words, none of them among the row's `excluded` ones: [n, k]."""
    needed = k + (0 if excluded is None else excluded.shape[1])
    if len(words) < needed:
        raise UserError(
            f"This tokenizer writes only {len(words)} of the {kind} as one token each, and "
            f"{needed} are needed. Choose fewer boxes or another model."
        )
    return distinct_words(rng, words, n, k, excluded)


def _pick(table: Any, column: Ints) -> Any:
    return np.take_along_axis(table, column[:, None], axis=1)[:, 0]


def _encode(
    tokenizer: Any,
    vocabulary: Vocabulary,
    objects: WordTable,
    labels: WordTable,
    query: Ints,
    query_labels: WordTable,
    previous: Ints,
    seed: int,
) -> PromptSet:
    """Tokenize, and locate every object and label; `previous` [n] is the box read by stage D."""
    texts = tuple(
        _text(*row) for row in zip(objects.tolist(), labels.tolist(), query_labels, strict=True)
    )
    rows = tokenized(tokenizer, texts)
    if len({len(ids) for ids, _ in rows}) != 1:
        raise UserError(
            "This tokenizer gives prompts of different lengths, so their positions do not align. "
            "Choose a model whose tokenizer writes every object and label as one token."
        )
    input_ids = np.array([ids for ids, _ in rows], dtype=np.int64)
    spans = np.array([characters for _, characters in rows], dtype=np.int64)
    object_positions, label_positions, query_label = _locate(
        texts[0], spans[0], objects[0], labels[0]
    )
    object_ids = _ids(objects, vocabulary.objects)
    aligned = (
        (input_ids[:, object_positions] == object_ids).all()
        and (input_ids[:, label_positions] == _ids(labels, vocabulary.labels)).all()
        and (input_ids[:, query_label] == _ids(query_labels, vocabulary.labels)).all()
        and (spans[:, -1, 1] == [len(text) for text in texts]).all()
    )
    if not aligned:
        raise UserError(
            "This tokenizer splits the prompt's words in a way that moves the named positions. "
            "Choose a model whose tokenizer writes every object and label as one token."
        )
    n = len(texts)
    positions = {
        "last": np.full(n, input_ids.shape[1] - 1),
        "query_label": np.full(n, query_label),
        "prev_query_label": label_positions[previous],
        "correct_object": object_positions[query],
    }
    return PromptSet(
        ENTITY_TRACKING,
        texts,
        input_ids,
        answer_ids=_pick(object_ids, query),
        choice_ids=object_ids,
        positions=positions,
        roles={
            "object": np.tile(object_positions, (n, 1)),
            "label": np.tile(label_positions, (n, 1)),
            **{name: tokens[:, None] for name, tokens in positions.items()},
        },
        spans=spans,
        drawn={"objects": objects, "labels": labels, "query": query, "query_labels": query_labels},
        seed=seed,
    )


def _text(objects: list[str], labels: list[str], query_label: str) -> str:
    boxes = ", ".join(f"the {o} is in Box {b}" for o, b in zip(objects, labels, strict=True))
    return f"T{boxes[1:]}. Box {query_label} contains the"


def _locate(
    text: str, spans: Ints, objects: WordTable, labels: WordTable
) -> tuple[Ints, Ints, int]:
    """Token indices of the context's objects and labels [n_boxes] and of the query's label."""

    def token_at(character: int) -> int:
        return int(np.flatnonzero((spans[:, 0] <= character) & (character < spans[:, 1]))[-1])

    object_positions = [token_at(text.index(f"he {word} is in") + 3) for word in objects]
    label_positions = [token_at(text.index(f" Box {label}") + 5) for label in labels]
    query_label = token_at(text.rindex(" Box ") + 5)
    return np.array(object_positions), np.array(label_positions), query_label


def _ids(words: WordTable, vocabulary: Mapping[str, int]) -> Ints:
    return np.vectorize(vocabulary.__getitem__, otypes=[np.int64])(words)


def _length(n_boxes: int) -> int:
    return 7 * n_boxes + 5


@lru_cache(maxsize=8)
def _note(tokenizer: Any) -> str:
    return usable_vocabulary(tokenizer).note


ENTITY_TRACKING = Task(
    name="entity-tracking",
    title="Entity tracking",
    source="Prakash et al., ICLR 2024, arXiv:2402.14811",
    text="Each prompt puts objects into boxes and asks for one of them: `The apple is in Box F, "
    "the computer is in Box Q. Box F contains the` is to be followed by `apple`.",
    words=Words("the right object", "another box’s object", "the other boxes’ objects"),
    positions=(
        Position("prev_query_label", "at the previous label", "previous “{}”"),
        Position("query_label", "at the query’s label", "query “{}”", tail=3),
        Position("last", "at the last token", "last “{}”", tail=1),
    ),
    groups=(
        Group(
            "A", "Value Fetcher", "last", "logits", (), "#D55E00", "circle", 8,
            "Attends to the right object from the last token and copies its value to the logits.",
        ),
        Group(
            "B", "Position Transmitter", "last", "q", ("A",), "#0072B2", "square", 6,
            "Attends to the query’s label from the last token, and tells A where to look.",
        ),
        Group(
            "C", "Position Detector", "query_label", "v", ("B",), "#009E73", "triangle", 4,
            "At the label in the question: finds its first occurrence and picks up where it "
            "stands.",
        ),
        Group(
            "D", "Structure Reader", "prev_query_label", "v", ("C",), "#CC79A7", "diamond", 4,
            "At the first occurrence of the label asked for: reads the segment around it.",
        ),
    ),
    roles=(
        Role("object", "object", target="other objects"),
        Role("label", "label", target="other labels"),
        Role("last", "last token", "B"),
        Role("query_label", "label asked for", "C", "the label in the question"),
        Role(
            "prev_query_label", "label asked for, first time", "D",
            "the label asked for, in the context",
        ),
        Role("correct_object", "correct object", "A", "the right object"),
    ),
    options=(Option("boxes", "Boxes in each prompt", MIN_BOXES, MAX_BOXES, 7),),
    sample=sample_prompts,
    counterfactual=counterfactual_prompts,
    reference=reference_prompts,
    length=_length,
    note=_note,
)  # fmt: skip
