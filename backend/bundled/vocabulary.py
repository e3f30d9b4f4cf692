"""The words the bundled models know, and a tokenizer that gives each of them one token."""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from backend.tasks.vocabulary import object_words

START, END, PADDING, UNKNOWN = "<s>", "</s>", "<pad>", "<unk>"
SPECIAL = (START, END, PADDING, UNKNOWN)

LABELS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
VARIABLES = tuple("abcdefghijklmnopqrstuvwxyz")
NUMBERS = tuple(str(number) for number in range(60))

FUNCTION_WORDS = (
    *(".", ",", "+", "=", ":", "?"),
    *("The", "the", "is", "in", "Box", "contains"),
    *("value", "goes", "to", "variable", "holds"),
    *("index", "number"),
    *("User", "Assistant", "What", "does", "contain"),
)


@cache
def words() -> tuple[str, ...]:
    """Every word with a token of its own; its place is its token id."""
    return (*SPECIAL, *FUNCTION_WORDS, *NUMBERS, *LABELS, *VARIABLES, *object_words())


@cache
def word_ids() -> dict[str, int]:
    """Word -> token id."""
    return {word: index for index, word in enumerate(words())}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer: one token a word or punctuation mark, `<s>` in front."""
    core = Tokenizer(models.WordLevel(word_ids(), unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    core.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, word_ids()[START])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=START,
        eos_token=END,
        pad_token=PADDING,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )
