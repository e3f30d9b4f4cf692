"""Tokenizers trained on the task's words, in the layouts that models on the hub have.

Each maker takes `labels` and `objects`, the words that it is trained on: the others fall apart; or
a `corpus` of another task.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import GemmaTokenizer, GPT2Tokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from backend.tasks.vocabulary import object_words

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
"""What a SentencePiece tokenizer writes a character as that it does not know."""
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama-3 and Qwen split a text into what they merge."""


def sentencepiece(start: bool = True, add_prefix_space: bool = True, **words: Any) -> Any:
    """A Llama's, as transformers builds it: Metaspace, byte fallback, `▁` before the first word."""
    vocabulary, merges = _metaspace_pieces(["<unk>", "<s>", "</s>"], **words)
    return LlamaTokenizer(
        vocab=vocabulary,
        merges=merges,
        add_bos_token=start,
        add_prefix_space=add_prefix_space,
    )


def normalised_sentencepiece(**words: Any) -> Any:
    """A Llama's, as the hub's older files have it: a normaliser writes spaces as `▁`."""
    pieces = _metaspace_pieces(["<unk>", "<s>", "</s>"], **words)
    return _started(_normalised(pieces), "<s>")


def gemma(start: bool = True, **words: Any) -> Any:
    """Gemma's: no `▁` before the first word."""
    vocabulary, merges = _metaspace_pieces(["<pad>", "<eos>", "<bos>", "<unk>"], **words)
    return GemmaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=start)


def gpt2(add_prefix_space: bool = False, **words: Any) -> Any:
    """GPT-2's: byte-level, and no start token."""
    vocabulary, merges = _byte_level_pieces(**words)
    return GPT2Tokenizer(vocab=vocabulary, merges=merges, add_prefix_space=add_prefix_space)


def llama3(start: bool = True, **words: Any) -> Any:
    """Llama-3's with its start token, Qwen's without: byte-level, split by a pattern."""
    tokenizer = Tokenizer(models.BPE(*_byte_level_pieces(**words), ignore_merges=True))
    split = pre_tokenizers.Split(Regex(_LLAMA_3), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    if start:
        return _started(tokenizer, "<|begin_of_text|>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


STYLES = {
    "SentencePiece": sentencepiece,
    "SentencePiece without a start": lambda **words: sentencepiece(start=False, **words),
    "SentencePiece without a prefix": lambda **words: sentencepiece(
        add_prefix_space=False, **words
    ),
    "SentencePiece as a normaliser": normalised_sentencepiece,
    "Gemma": gemma,
    "GPT-2": gpt2,
    "GPT-2 with a prefix": lambda **words: gpt2(add_prefix_space=True, **words),
    "Llama-3": llama3,
    "Qwen": lambda **words: llama3(start=False, **words),
}


def _corpus(
    labels: Sequence[str] = string.ascii_uppercase,
    objects: Sequence[str] | None = None,
    corpus: Sequence[str] | None = None,
) -> list[str]:
    """The task's sentences, of these words only; the frame comes often, so that it merges first."""
    if corpus is not None:
        return [*corpus]
    objects = object_words() if objects is None else objects
    boxed = [f"The {word} is in Box" for word in objects]
    more = [f" the {word}" for word in objects] + [f" Box {label}" for label in labels]
    return 3 * (boxed + more) + 200 * [" contains the", ", the", "."]


def _metaspace_pieces(special: Sequence[str], **words: Any) -> tuple[Any, Any]:
    alphabet = sorted(set(string.ascii_letters + "▁,."))
    return _pieces(pre_tokenizers.Metaspace(), [*special, *BYTES], alphabet, _corpus(**words))


def _byte_level_pieces(**words: Any) -> tuple[Any, Any]:
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return _pieces(split, ["<|endoftext|>"], alphabet, _corpus(**words))


def _pieces(
    split: Any, special: Sequence[str], alphabet: Sequence[str], corpus: Sequence[str]
) -> tuple[Any, Any]:
    """A vocabulary and merges trained with `split`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        min_frequency=2,
        special_tokens=[*special],
        initial_alphabet=[*alphabet],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    return trained["vocab"], [tuple(pair) for pair in trained["merges"]]


def _normalised(pieces: tuple[Any, Any]) -> Any:
    tokenizer = Tokenizer(models.BPE(*pieces, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def _started(tokenizer: Any, start: str) -> Any:
    """With a start token before every text."""
    tokenizer.add_special_tokens([start])
    token = tokenizer.token_to_id(start)
    tokenizer.post_processor = processors.TemplateProcessing(f"{start} $A", None, [(start, token)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=start)
