"""A Llama built by hand that identifies indirect objects with a circuit we know.

The mechanism is that of Wang et al. (ICLR 2023), with one feature per name and step:

- L0.1 (PT) attends to the token before and writes which name it is: “the name before me is S”.
  L0.2 writes whether the comma has been passed.
- L2.0 (IN), an induction head, compares its own name with “the name before me” of the tokens so
  far, by its keys: at S2 it attends to S1 + 1, and writes half of “S is repeated”. L1.2 (IN), a
  duplicate-token head, attends from S2 to S1 and writes the other half.
- L3.1 (SI) attends from the end to the name after the comma, and copies “S is repeated” into “not
  S”.
- L4.0, L4.3 (NM) attend from the end to names that are not ruled out, and copy the name found into
  the answer. L4.2, a negative name mover, attends as they do and writes against the answer.

Where nothing fits, heads attend to the first word, which has nothing to copy. All other heads have
small random weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, sin
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from backend.core.heads import Head
from backend.tasks.ioi_words import NAMES, OBJECTS, PLACES, TEMPLATES
from tests.planting import TURNED, UNROTATED, Terms, idle_llama, plant

PEOPLE = NAMES[::10][:12]
CIRCUIT = {
    "NM": (Head(4, 0), Head(4, 3)),
    "SI": (Head(3, 1),),
    "IN": (Head(1, 2), Head(2, 0)),
    "PT": (Head(0, 1),),
}
NEGATIVE = Head(4, 2)
"""Writes against the answer: the probability of the right one rises without it."""
COMMA = Head(0, 2)
"""Works the same in every prompt, so that no counterfactual moves it."""

SHARP, STEEP = 30.0, 400.0
INHIBITION = 4.0
"""So little that half of it is felt."""
LOGIT, MOVED, OPPOSED = 8.0, 0.5, -0.375

_OPENINGS = tuple(sorted({template.split()[0] for template in TEMPLATES}))
_FRAME = sorted({word for template in TEMPLATES for word in template.split() if word[0] != "{"})
WORDS = ("<unk>", ",", *_FRAME, *PEOPLE, *PLACES, *OBJECTS)
FEATURES = [
    *("constant", "opening", "comma", "after comma", "is name"),
    *(
        f"{feature} {name}"
        for feature in ("name", "before", "repeated", "not", "answer")
        for name in PEOPLE
    ),
    *("spare 1", "spare 2", "spare 3"),
]


def tokenizer(known: Sequence[str] = WORDS) -> Any:
    """Every word of the task's sentences is one token; of the names, only some are known."""
    vocabulary = {word: token for token, word in enumerate(known)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")


def model(seed: int = 0) -> LlamaForCausalLM:
    """The planted model; `seed` of the heads that do nothing."""
    planted = idle_llama(FEATURES, len(WORDS), n_layers=5, seed=seed)
    with torch.no_grad():
        _embed(planted)
    _plant_previous(planted)
    _plant_comma(planted)
    _plant_repeated(planted, Head(1, 2), "name")
    _plant_repeated(planted, Head(2, 0), "before")
    _plant_inhibition(planted)
    for head in CIRCUIT["NM"]:
        _plant_mover(planted, head, MOVED)
    _plant_mover(planted, NEGATIVE, OPPOSED)
    return planted


def _embed(planted: Any) -> None:
    embedding, head = planted.model.embed_tokens.weight, planted.lm_head.weight
    features = {word: ["opening"] for word in _OPENINGS} | {",": ["comma"]}
    features |= {name: ["is name", f"name {name}"] for name in PEOPLE}
    for token, word in enumerate(WORDS):
        for feature in features.get(word, []):
            embedding[token, FEATURES.index(feature)] = 1
        if word in PEOPLE:
            head[token, FEATURES.index(f"answer {word}")] = LOGIT


def _plant_previous(planted: Any) -> None:
    """The pair of dimensions that turns by one radian a token, a radian ahead in the query."""
    x, y = TURNED
    queries: Terms = {("constant", x): cos(1), ("constant", y): -sin(1)}
    plant(planted, FEATURES, Head(0, 1), queries, {("constant", x): STEEP}, _each("name", "before"))


def _plant_comma(planted: Any) -> None:
    keys: Terms = {("opening", 1): SHARP, ("comma", 1): 2 * SHARP}
    plant(planted, FEATURES, COMMA, {("constant", 1): 1}, keys, {"comma": "after comma"})


def _plant_repeated(planted: Any, head: Head, feature: str) -> None:
    """Attend to the earlier token whose `feature` is the own name, and write half of what it is."""
    flag, *codes = UNROTATED
    queries: Terms = {("constant", flag): 1}
    keys: Terms = {("opening", flag): SHARP / 2, ("after comma", flag): -2 * SHARP}
    for name, code in zip(PEOPLE, codes, strict=False):
        queries[f"name {name}", code] = 1
        keys[f"{feature} {name}", code] = SHARP
    plant(planted, FEATURES, head, queries, keys, _each(feature, "repeated"), share=0.5)


def _plant_inhibition(planted: Any) -> None:
    keys: Terms = {("is name", 1): SHARP, ("after comma", 1): SHARP, ("opening", 1): SHARP * 1.5}
    copied = _each("repeated", "not")
    plant(planted, FEATURES, *CIRCUIT["SI"], {("constant", 1): 1}, keys, copied)


def _plant_mover(planted: Any, head: Head, share: float) -> None:
    flag, *codes = UNROTATED
    queries: Terms = {("constant", flag): 1}
    keys: Terms = {("is name", flag): SHARP}
    for name, code in zip(PEOPLE, codes, strict=False):
        queries[f"not {name}", code] = -1
        keys[f"name {name}", code] = INHIBITION
    plant(planted, FEATURES, head, queries, keys, _each("name", "answer"), share)


def _each(source: str, target: str) -> dict[str, str]:
    return {f"{source} {name}": f"{target} {name}" for name in PEOPLE}


def saved(folder: Path, seed: int = 0) -> str:
    """The folder, with the model and its tokenizer in it."""
    model(seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)
