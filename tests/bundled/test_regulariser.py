import numpy as np
import pytest
import torch

from backend.bundled.documents import OBJECTS_IN_BOXES, Part, Query, entity_documents
from backend.bundled.regulariser import LIVE_LAYERS, mean_ablated
from backend.bundled.train import losses_of, new_model


@pytest.fixture(scope="module")
def model():
    return new_model(0).eval()


@pytest.fixture(scope="module")
def documents():
    return entity_documents(OBJECTS_IN_BOXES, Query.lookup, 3, 6, np.random.default_rng(0))


def slowly_ablated_logits(model, ids, parts):
    """One document, layer, token and head at a time, with nothing but the model's own modules."""
    stack = model.get_decoder()
    hidden = stack.embed_tokens(ids)
    position = stack.rotary_emb(hidden, torch.arange(ids.shape[1])[None])
    n_tokens = ids.shape[1]
    causal = torch.full((n_tokens, n_tokens), float("-inf")).triu(1)[None, None]
    for layer, block in enumerate(stack.layers):
        heads = []
        keep = block.self_attn.o_proj.register_forward_pre_hook(
            lambda _, inputs, heads=heads: heads.append(inputs[0].clone())
        )
        block.self_attn(
            block.input_layernorm(hidden), position_embeddings=position, attention_mask=causal
        )
        keep.remove()
        outputs = heads[0]
        replaced = outputs.clone()
        for token, part in enumerate(parts):
            first, end = LIVE_LAYERS[part]
            if not first <= layer < end:
                for document in range(len(ids)):
                    for head in range(8):
                        slot = slice(16 * head, 16 * head + 16)
                        total = sum(outputs[d, token, slot] for d in range(len(ids)))
                        replaced[document, token, slot] = total / len(ids)
        hidden = hidden + block.self_attn.o_proj(replaced)
        hidden = hidden + block.mlp(block.post_attention_layernorm(hidden))
    return model.lm_head(stack.norm(hidden))


@torch.no_grad()
@pytest.mark.parametrize("everything", [False, True])
def test_equals_a_slow_explicit_computation(model, documents, everything):
    parts = (Part.filler,) * len(documents.parts) if everything else documents.parts
    ids = torch.from_numpy(documents.input_ids)
    with mean_ablated(model, parts):
        logits = model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(
        logits, slowly_ablated_logits(model, ids, parts), atol=1e-4, rtol=1e-4
    )


def test_leaves_documents_alone_whose_parts_are_free(model, documents):
    ids = torch.from_numpy(documents.input_ids)
    with torch.no_grad():
        before = model(input_ids=ids).logits
        with mean_ablated(model, (Part.free,) * ids.shape[1]):
            assert torch.equal(model(input_ids=ids).logits, before)
        assert torch.equal(model(input_ids=ids).logits, before)


def test_gradients_flow_through_the_means(model, documents):
    with mean_ablated(model, documents.parts):
        on_answers, _ = losses_of(model, documents)
    on_answers.backward()
    for block in model.get_decoder().layers:
        assert block.self_attn.v_proj.weight.grad.abs().max() > 0
    model.zero_grad()
