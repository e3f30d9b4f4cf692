"""Indirect object identification: who gets what is given (Wang et al., ICLR 2023, section 2).

`When Mary and John drove to the museum, John delivered a book to` -> `Mary`
S, the subject, is the name that comes twice (S1, S2), and IO, the indirect object, the other one.
IO comes first (ABB) as often as S (BAB). All templates have one skeleton, so that a set mixes them
and tokens align; of a tokenizer that writes some of their words in pieces, those templates are left
that have their names at the most common places and the most common length. NumPy and text: no
torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.core.errors import UserError
from backend.tasks.attention_edges import RANDOM, AttentionEdge
from backend.tasks.ioi_words import NAMES, OBJECTS, PLACES, TEMPLATES
from backend.tasks.prompts import Ints, PromptSet, check_size, distinct_words, generators
from backend.tasks.task import Group, Position, Role, Task, Words
from backend.tasks.vocabulary import single_tokens, tokenized, tokens_at

Texts = NDArray[np.str_]

_NAME_CONTEXTS = (("When ", " and"), ("and ", " went"), ("the bank, ", " gave"), ("a book to ", ""))
_PLACE_CONTEXTS = (("went to the ", ","),)
_OBJECT_CONTEXTS = (("gave a ", " to"),)
_LEAST_NAMES = 5
"""Two in a prompt and three others in its counterfactual."""


@dataclass(frozen=True)
class Vocabulary:
    """Words that are one token each for a tokenizer, with their ids, and templates that align."""

    names: Mapping[str, int]
    places: Mapping[str, int]
    objects: Mapping[str, int]
    templates: tuple[str, ...]

    @property
    def note(self) -> str:
        """What the prompts leave out, in a sentence; empty when they have all."""
        counts = [
            f"{len(everything) - len(kept)} of {len(everything)} {kind}"
            for kind, everything, kept in (
                ("names", NAMES, self.names),
                ("places", PLACES, self.places),
                ("objects", OBJECTS, self.objects),
                ("sentences", TEMPLATES, self.templates),
            )
            if len(kept) < len(everything)
        ]
        return (
            f"The prompts leave out {' and '.join(counts)}: this tokenizer does not write them in "
            "as many tokens as the others."
            if counts
            else ""
        )


def usable_vocabulary(tokenizer: Any) -> Vocabulary:
    """The words that are the same one token wherever prompts have them, and aligned templates."""
    names = single_tokens(tokenizer, NAMES, _NAME_CONTEXTS)
    places = single_tokens(tokenizer, PLACES, _PLACE_CONTEXTS)
    objects = single_tokens(tokenizer, OBJECTS, _OBJECT_CONTEXTS)
    if not (names and places and objects):
        return Vocabulary(names, places, objects, ())
    name, place, item = (next(iter(words)) for words in (names, places, objects))
    templates = _aligned_templates(tokenizer, (name, name, place, name, item))
    return Vocabulary(names, places, objects, templates)


def _aligned_templates(tokenizer: Any, words: Sequence[str]) -> tuple[str, ...]:
    """Those of the most common length and places of `words`, and without an unknown word."""
    filled = [_fill(template, words) for template in TEMPLATES]
    rows = tokenized(tokenizer, [text for text, _ in filled])
    shapes: dict[str, tuple[int, ...]] = {}
    for template, (_, ends), (ids, spans) in zip(TEMPLATES, filled, rows, strict=True):
        # A start token may be the unknown one, too, but has no characters.
        told = [token for token, (start, end) in zip(ids, spans, strict=True) if end > start]
        if tokenizer.unk_token_id not in told:
            slots = tokens_at(np.array([spans]), np.array([ends]))[0]
            shapes[template] = (len(ids), *slots.tolist())
    counted = Counter(shapes.values()).most_common(1)
    return tuple(template for template, shape in shapes.items() if shape == counted[0][0])


def sample_prompts(tokenizer: Any, n: int, seed: int = 0) -> PromptSet:
    """`n` prompts, each of a random template, in random order, with random words.

    The first prompts of a seed are the same for every `n`. `drawn` has `names` [n, 3], IO, S1 and
    S2, `places` and `objects` [n], `templates` [n], and `io_first` [n], whether the order is ABB.
    Raises UserError for a tokenizer that leaves too few one-token words.
    """
    return _drawn(tokenizer, n, seed, "prompts", n_names=2)


def reference_prompts(tokenizer: Any, n: int, seed: int = 0) -> PromptSet:
    """Prompts over which head outputs are averaged for a knock-out: three names each (ABC).

    They are drawn independently of the prompts of every seed (Wang et al., section 2.2).
    """
    return _drawn(tokenizer, n, seed, "reference", n_names=3)


def counterfactual_prompts(
    tokenizer: Any, prompts: PromptSet, seed: int | None = None
) -> PromptSet:
    """Each prompt with three unrelated names (ABC), none of them its own, and all else the same.

    Tokens keep their places: IO and S1 are the first two names, in the prompt's order, S2 the
    third (Wang et al., section 3.1). The seed is the prompts' own unless given.
    """
    seed = prompts.seed if seed is None else seed
    vocabulary = _enough(tokenizer)
    (names_rng,) = generators(seed, "counterfactual", 1)
    names = distinct_words(names_rng, vocabulary.names, len(prompts), 3, prompts.drawn["names"])
    return _encode(tokenizer, vocabulary, {**prompts.drawn, "names": names}, seed)


def _drawn(tokenizer: Any, n: int, seed: int, purpose: str, n_names: int) -> PromptSet:
    check_size(n, seed)
    vocabulary = _enough(tokenizer)
    names_rng, *others = generators(seed, purpose, 5)
    names = distinct_words(names_rng, vocabulary.names, n, n_names)
    pools: tuple[Sequence[Any], ...] = (
        vocabulary.templates,
        [*vocabulary.places],
        [*vocabulary.objects],
        [False, True],
    )
    templates, places, objects, io_first = (
        np.array(pool)[rng.integers(len(pool), size=n)]
        for rng, pool in zip(others, pools, strict=True)
    )
    drawn = {
        "names": names[:, [0, 1, n_names - 1]],
        "templates": templates,
        "places": places,
        "objects": objects,
        "io_first": io_first,
    }
    return _encode(tokenizer, vocabulary, drawn, seed)


def _enough(tokenizer: Any) -> Vocabulary:
    vocabulary = usable_vocabulary(tokenizer)
    for kind, all_of_them, needed in (
        ("names", NAMES, _LEAST_NAMES),
        ("places", PLACES, 1),
        ("objects", OBJECTS, 1),
    ):
        if len(getattr(vocabulary, kind)) < needed:
            raise UserError(
                f"This tokenizer writes only {len(getattr(vocabulary, kind))} of the "
                f"{len(all_of_them)} {kind} as one token each, and {needed} are needed. Choose a "
                "model whose tokenizer has them, or another task."
            )
    if not vocabulary.templates:
        raise UserError(
            "This tokenizer does not know the words of any of the task’s sentences. Choose a model "
            "that was trained on English text, or another task."
        )
    return vocabulary


def _encode(
    tokenizer: Any, vocabulary: Vocabulary, drawn: Mapping[str, NDArray[Any]], seed: int
) -> PromptSet:
    io, s1, s2 = drawn["names"].T
    io_first, templates = drawn["io_first"], drawn["templates"]
    words = np.stack(
        [
            np.where(io_first, io, s1),
            np.where(io_first, s1, io),
            drawn["places"],
            s2,
            drawn["objects"],
        ],
        axis=1,
    )
    filled = [_fill(*row) for row in zip(templates.tolist(), words.tolist(), strict=True)]
    texts = tuple(text for text, _ in filled)
    rows = tokenized(tokenizer, texts)
    tokens_of = {**vocabulary.names, **vocabulary.places, **vocabulary.objects}
    if len({len(ids) for ids, _ in rows}) != 1:
        raise _misaligned()
    input_ids = np.array([ids for ids, _ in rows], dtype=np.int64)
    spans = np.array([characters for _, characters in rows], dtype=np.int64)
    slots = tokens_at(spans, np.array([ends for _, ends in filled]))
    written = np.take_along_axis(input_ids, slots, axis=1)
    if (slots != slots[0]).any() or (written != _ids(words, tokens_of)).any():
        raise _misaligned()
    first, second, place, third, item = slots.T
    named = {
        "io": np.where(io_first, first, second),
        "s1": np.where(io_first, second, first),
        "s1_plus_1": np.where(io_first, second, first) + 1,
        "s2": third,
        "end": np.full(len(texts), input_ids.shape[1] - 1),
    }
    choice_ids = _ids(drawn["names"][:, [0, 2]], vocabulary.names)
    roles = {**named, "place": place, "object": item}
    return PromptSet(
        IOI,
        texts,
        input_ids,
        answer_ids=choice_ids[:, 0].copy(),
        choice_ids=choice_ids,
        positions=named,
        roles={name: tokens[:, None] for name, tokens in roles.items()},
        spans=spans,
        drawn=drawn,
        seed=seed,
    )


def _fill(template: str, words: Sequence[str]) -> tuple[str, list[int]]:
    """A template with its words, in order, and the last character of each word."""
    text, ends = "", []
    *between, last = re.split(r"\{\w+\}", template)
    for before, word in zip(between, words, strict=True):
        text += before + word
        ends.append(len(text) - 1)
    return text + last, ends


def _ids(words: Texts, tokens: Mapping[str, int]) -> Ints:
    return np.vectorize(tokens.__getitem__, otypes=[np.int64])(words)


def _misaligned() -> UserError:
    return UserError(
        "This tokenizer splits the words of these sentences in a way that moves the named tokens. "
        "Choose a model whose tokenizer writes names, places and objects as one token each."
    )


def _length() -> int:
    return 14


def _note(tokenizer: Any) -> str:
    return usable_vocabulary(tokenizer).note


IOI = Task(
    name="ioi",
    title="Indirect object identification",
    source="Wang et al., ICLR 2023, arXiv:2211.00593",
    text="Two people are named, and one of them, S, gives something to the other, the indirect "
    "object IO: `When Mary and John drove to the museum, John delivered a book to` is to be "
    "followed by `Mary`. IO comes first in about half of the prompts. The counterfactual has three "
    "unrelated names in the same sentence. All sentences have one skeleton, so that a set of "
    "prompts mixes them; of a tokenizer that writes some in more tokens, those of the most common "
    "length are used.",
    words=Words("the indirect object", "the subject", "the subject"),
    positions=(
        Position("s1_plus_1", "at the token after S1", "S1 + 1 “{}”"),
        Position("s2", "at S2", "S2 “{}”", tail=5),
        Position("end", "at the last token", "end “{}”", tail=1),
    ),
    groups=(
        Group(
            "NM", "Name Mover", "end", "logits", (), "#D55E00", "circle", 6,
            "Attends to the indirect object from the last token and copies the name to the logits. "
            "A head with a positive score, a negative name mover, writes against the answer.",
        ),
        Group(
            "SI", "S-Inhibition", "end", "q", ("NM",), "#0072B2", "square", 4,
            "Attends to S2 from the last token, and tells the name movers which name to avoid.",
        ),
        Group(
            "IN", "Induction and Duplicate Token", "s2", "v", ("SI",), "#009E73", "triangle", 5,
            "Notices that the name was there before. Induction heads attend to S1 + 1, "
            "duplicate token heads to S1; both write into the same values, and path patching alone "
            "cannot tell them apart.",
        ),
        Group(
            "PT", "Previous Token", "s1_plus_1", "k", ("IN",), "#CC79A7", "diamond", 3,
            "Says which name came before, so that induction heads find it.",
        ),
    ),
    roles=(
        Role("place", "place"),
        Role("object", "object"),
        Role("end", "last token", "SI"),
        Role("s1_plus_1", "token after S1", "PT", "S1 + 1"),
        Role("s1", "subject, first time (S1)", target="S1"),
        Role("s2", "subject, second time (S2)", "IN", "S2"),
        Role("io", "indirect object (IO)", "NM", "IO"),
    ),
    options=(),
    sample=sample_prompts,
    counterfactual=counterfactual_prompts,
    reference=reference_prompts,
    length=_length,
    note=_note,
    edges=(
        AttentionEdge("end", "io"),
        AttentionEdge("end", "s2"),
        AttentionEdge("s2", "s1"),
        AttentionEdge("s2", "s1_plus_1"),
        AttentionEdge("end", RANDOM),
        AttentionEdge("s2", RANDOM),
    ),
)  # fmt: skip
"""Groups as in the paper's figure 2; its induction and duplicate token heads are one group."""
