"""GGUF files: what is made of them computes what they say, and what is not known gets a message."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file
from transformers import LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

from backend.commands.cli import main
from backend.core.errors import UserError
from backend.core.files import CACHE
from backend.models import adding, gguf_folders, registry
from backend.models.gguf_conversion import convert
from backend.models.gguf_folders import gguf_at, origin_of
from backend.models.loading import load_model
from backend.models.registry import place
from backend.tasks.ioi import IOI
from tests.tiny import of_kind

SPECIAL = ("<|endoftext|>", "<|im_start|>")
MERGES = ("Ġ t", "h e", "Ġt he", "Ġ B", "o x")
TOKENS = (*SPECIAL, *bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in MERGES))
PIECES = (
    "<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)),
    "▁t", "he", "▁the", "▁", *map(chr, range(33, 127)),
)  # fmt: skip
SIZE: dict[str, Any] = {
    "vocab_size": len(TOKENS),
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
}
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.layers": "blk",
}
TOLERANCES = {
    Kind.F16: 1e-3, Kind.BF16: 5e-3, Kind.Q8_0: 0.01, Kind.Q5_0: 0.06, Kind.Q5_1: 0.06,
    Kind.Q4_0: 0.12, Kind.Q4_1: 0.12, Kind.MXFP4: 0.2, Kind.TQ1_0: 0.9, Kind.TQ2_0: 0.9,
}  # fmt: skip
"""Of each type that can be written here: its largest error, as a share of the weights' size. Rows
in a wrong order would make it 1.4."""
RAW = [
    Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.IQ4_NL, Kind.IQ4_XS, Kind.IQ3_S,
    Kind.IQ3_XXS, Kind.IQ2_S, Kind.IQ2_XS, Kind.IQ2_XXS, Kind.IQ1_S, Kind.IQ1_M,
]  # fmt: skip
"""Types that nothing here can write: blocks of random bytes."""


def model_of(architecture: str, **changes: Any) -> Any:
    from transformers import LlamaConfig, Qwen2Config, Qwen3Config

    kinds = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
    # Qwen 3's GGUF files do not say how large a head is: 128, in all that there are.
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 128}
    size = SIZE | (heads if architecture == "qwen3" else {}) | changes
    return of_kind(kinds[architecture], **size)


def permuted(weights: np.ndarray, n_heads: int) -> np.ndarray:
    """As llama.cpp orders the rows of queries and keys: the halves of a head interleaved."""
    halves = weights.reshape(n_heads, 2, weights.shape[0] // n_heads // 2, -1)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weights.shape))


def named(name: str) -> str:
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def write(
    path: Path,
    model: Any,
    architecture: str = "llama",
    kind: Kind = Kind.F32,
    tokens: Sequence[str] = TOKENS,
    split: str = "gpt-2",
    kind_of_tokens: str = "gpt2",
    also: Callable[[gguf.GGUFWriter], None] = lambda _: None,
) -> Path:
    """A model as a GGUF file, its matrices of one type."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if architecture == "llama":
        writer.add_rope_dimension_count(config.head_dim)
    writer.add_tokenizer_model(kind_of_tokens)
    writer.add_token_list(list(tokens))
    if kind_of_tokens == "gpt2":
        writer.add_tokenizer_pre(split)
        writer.add_token_merges(list(MERGES))
        writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    else:
        writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    also(writer)
    tied = config.tie_word_embeddings
    for name, weights in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        numbers = weights.numpy()
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            n_heads = config.num_attention_heads if "q_" in name else config.num_key_value_heads
            numbers = permuted(numbers, n_heads)
        if numbers.ndim == 1 or kind == Kind.F32:
            writer.add_tensor(named(name), numbers)
        elif kind in RAW:
            writer.add_tensor(named(name), random_blocks(numbers, kind), raw_dtype=kind)
        else:
            writer.add_tensor(named(name), gguf.quants.quantize(numbers, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_blocks(numbers: np.ndarray, kind: Kind) -> np.ndarray:
    """Blocks for as many numbers; no half float in them can be infinite or none."""
    shape = gguf.quants.quant_shape_to_byte_shape(numbers.shape, kind)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8) & 0x3B


@pytest.fixture(autouse=True)
def _made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_folders, "MADE", tmp_path / "made")


def converted(path: Path) -> Path:
    return convert(path, lambda *_: None)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_what_is_made_computes_what_the_model_did(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    model = model_of(architecture, tie_word_embeddings=tied)
    folder = converted(write(tmp_path / "tiny.gguf", model, architecture))
    loaded = load_model(str(folder))
    tokens = torch.randint(2, len(TOKENS), (3, 17))
    with torch.no_grad():
        expected, found = model(tokens).logits, loaded.model(tokens).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert loaded.notes(IOI)[0].startswith("Its weights are those of tiny.gguf (F32, made float32)")


@pytest.mark.parametrize("kind", TOLERANCES, ids=lambda kind: kind.name)
def test_quantised_weights_are_near_those_they_were_made_of(tmp_path: Path, kind: Kind) -> None:
    model = model_of("llama")
    folder = converted(write(tmp_path / "tiny.gguf", model, kind=kind))
    found = load_file(folder / "model.safetensors")
    for name, weights in found.items():
        was = model.state_dict()[name]
        assert weights.dtype == torch.float32
        assert (weights - was).norm() <= TOLERANCES[kind] * was.norm(), name
    origin = origin_of(folder)
    assert origin
    assert str(origin) == f"{kind.name}, made float32"


def test_q4_1_and_q8_0_are_what_their_blocks_say(tmp_path: Path) -> None:
    model = model_of("llama")
    name = "model.layers.1.mlp.down_proj.weight"
    numbers = model.state_dict()[name].numpy()
    for kind in (Kind.Q4_1, Kind.Q8_0):
        blocks = gguf.quants.quantize(numbers, kind)
        expected = np.array([by_hand(row.tobytes(), kind) for row in blocks])
        folder = converted(write(tmp_path / f"{kind.name}.gguf", model, kind=kind))
        found = load_file(folder / "model.safetensors")[name].double().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def by_hand(row: bytes, kind: Kind) -> list[float]:
    size = {Kind.Q4_1: 20, Kind.Q8_0: 34}[kind]
    numbers: list[float] = []
    for start in range(0, len(row), size):
        block = row[start : start + size]
        scale = float(np.frombuffer(block[:2], np.float16)[0])
        if kind is Kind.Q8_0:
            numbers += [scale * (byte - 256 if byte > 127 else byte) for byte in block[2:]]
        else:
            least = float(np.frombuffer(block[2:4], np.float16)[0])
            numbers += [scale * (byte & 15) + least for byte in block[4:]]
            numbers += [scale * (byte >> 4) + least for byte in block[4:]]
    return numbers


@pytest.mark.parametrize("kind", RAW, ids=lambda kind: kind.name)
def test_types_that_cannot_be_written_here_are_read(tmp_path: Path, kind: Kind) -> None:
    model = model_of("llama")
    folder = converted(write(tmp_path / "tiny.gguf", model, kind=kind))
    name = "model.layers.0.self_attn.v_proj.weight"
    expected = gguf.quants.dequantize(random_blocks(model.state_dict()[name].numpy(), kind), kind)
    found = load_file(folder / "model.safetensors")[name].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_tokenizer_is_what_the_file_says(tmp_path: Path) -> None:
    folder = converted(write(tmp_path / "tiny.gguf", model_of("llama"), split="smollm"))
    tokenizer = load_model(str(folder)).tokenizer
    assert tokenizer.convert_ids_to_tokens(range(len(TOKENS))) == list(TOKENS)
    assert tokenizer.tokenize("in the Box 12") == ["i", "n", "Ġthe", "ĠB", "ox", "Ġ", "1", "2"]
    assert (tokenizer.bos_token, tokenizer.eos_token) == (SPECIAL[1], SPECIAL[0])
    assert tokenizer("the")["input_ids"] == [TOKENS.index("t"), TOKENS.index("he")]


def test_a_text_begins_as_the_file_says(tmp_path: Path) -> None:
    path = write(
        tmp_path / "tiny.gguf",
        model_of("llama"),
        also=lambda writer: writer.add_add_bos_token(True),
    )
    tokenizer = load_model(str(converted(path))).tokenizer
    assert tokenizer("the")["input_ids"][0] == 1


def of_sentencepiece(writer: gguf.GGUFWriter) -> None:
    writer.add_token_scores([-float(number) for number in range(len(PIECES))])
    writer.add_unk_token_id(0)


def test_a_sentencepiece_tokenizer_is_what_the_file_says(tmp_path: Path) -> None:
    model = model_of("llama", vocab_size=len(PIECES))
    path = write(
        tmp_path / "tiny.gguf", model, tokens=PIECES, kind_of_tokens="llama", also=of_sentencepiece
    )
    tokenizer = load_model(str(converted(path))).tokenizer
    assert tokenizer.convert_ids_to_tokens(range(len(PIECES))) == list(PIECES)
    found = tokenizer.convert_ids_to_tokens(tokenizer("the Box é")["input_ids"])
    assert found == ["<s>", "▁the", "▁", "B", "o", "x", "▁", "<0xC3>", "<0xA9>"]


def damaged(path: Path) -> None:
    path.write_bytes(b"GGUX" + path.read_bytes()[4:])


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5000)


def cut_in_the_header(path: Path) -> None:
    os.truncate(path, 3000)


def counts_without_end(path: Path) -> None:
    """A list of 2**60 bytes, in a file of few."""
    field = b"\x01\x00\x00\x00\x00\x00\x00\x00x" + (9).to_bytes(4, "little")
    counts = (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    whole = b"GGUF" + (3).to_bytes(4, "little") + counts + field + bytes(4)
    path.write_bytes(whole + (2**60).to_bytes(8, "little") + bytes(100))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [damaged, cut, cut_in_the_header, counts_without_end, empty])
def test_a_damaged_file_gets_a_message(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    path = write(tmp_path / "tiny.gguf", model_of("llama"))
    harm(path)
    with pytest.raises(UserError, match=r"cannot be read: .+\. Fetch the file again"):
        converted(path)
    assert list(gguf_folders.MADE.iterdir()) == []


def stretched(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)


def one_more(writer: gguf.GGUFWriter) -> None:
    writer.add_tensor("blk.0.attn_q.bias", np.zeros(256, np.float32))


def whole_numbers(writer: gguf.GGUFWriter) -> None:
    writer.add_tensor("blk.0.attn_q.bias", np.zeros(256, np.int32))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "mamba"}, "architecture that is not read from GGUF files here"),
        ({"split": "unheard-of"}, "“unheard-of”"),
        ({"tokens": (*TOKENS[:2], TOKENS[5], *TOKENS[3:])}, "a token stands twice"),
        ({"also": stretched}, "stretches its rotary positions"),
        ({"also": one_more}, "has no place for 1 of its tensors, such as blk.0.attn_q.bias"),
        ({"also": whole_numbers}, "has no place for 1 of its tensors"),
    ],
)
def test_what_is_not_known_gets_a_message(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = write(tmp_path / "tiny.gguf", model_of("llama"), **changes)
    with pytest.raises(UserError, match=said) as told:
        converted(path)
    assert "safetensors instead" in str(told.value)
    assert list(gguf_folders.MADE.iterdir()) == []


def test_it_is_made_once_and_again_when_it_was_taken_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", model_of("llama"))
    folder = converted(path)
    before = (folder / "model.safetensors").stat().st_ino
    assert converted(path) == folder
    assert (folder / "model.safetensors").stat().st_ino == before
    (folder / "model.safetensors").unlink()
    assert converted(path) == folder
    assert (folder / "model.safetensors").is_file()
    assert list(gguf_folders.MADE.iterdir()) == [folder]


def test_a_file_or_its_folder_is_added_and_its_quantisation_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "a folder"
    place.mkdir()
    path = write(place / "tiny.gguf", model_of("llama"), kind=Kind.Q4_1)
    assert main(["add", "mine", str(path)]) == 0
    new = json.loads(capsys.readouterr().out)
    assert new["made_of"] == "tiny.gguf: Q4_1, made float32"
    assert new["on_this_computer"]
    assert main(["add", "mine", str(path)]) == 1
    assert main(["add", "again", str(place)]) == 0
    assert registry.entry("again").source == registry.entry("mine").source
    (place / "other.gguf").touch()
    capsys.readouterr()
    assert main(["add", "third", str(place)]) == 1
    assert "holds 2 GGUF files. Give the path of one" in capsys.readouterr().err


def test_no_other_place_is_taken_for_a_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "tiny.gguf").touch()
    assert gguf_at(str(tmp_path)) is None
    assert gguf_at("owner/name.gguf") is None
    assert not adding.is_gguf("~nobody-here/x")
    assert not adding.is_gguf(" ")
    os.mkfifo(tmp_path / "pipe.gguf")
    assert gguf_at(str(tmp_path / "pipe.gguf")) is None
    with pytest.raises(UserError, match="GGUF files, which are read when they are added"):
        place(str(tmp_path / "tiny.gguf"))


def test_the_real_model_is_what_its_file_says() -> None:
    found = sorted((CACHE / "local" / "models").glob("SmolLM2-135M-Instruct*/config.json"))
    if not found:
        pytest.skip("SmolLM2 is not here: `make real` fetches it.")
    loaded = load_model(str(found[0].parent))
    assert isinstance(loaded.model, LlamaForCausalLM)
    assert loaded.is_taken_apart
    ids = loaded.tokenizer(
        "When Mary and John went to the store, John gave a drink to", return_tensors="pt"
    )
    with torch.no_grad():
        answer = loaded.model(**ids).logits[0, -1].argmax()
    assert loaded.tokenizer.decode(answer) == " Mary"
