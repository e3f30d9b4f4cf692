from backend.bundled.vocabulary import make_tokenizer, words
from backend.tasks.vocabulary import object_words, usable_vocabulary

TEXT = "The apple is in Box F, the computer is in Box Q. Box F contains the"


def test_one_token_a_word_or_mark_after_the_start_token():
    tokens = make_tokenizer().tokenize(TEXT, add_special_tokens=True)
    assert tokens == ["<s>", *TEXT.replace(",", " ,").replace(".", " .").split()]


def test_offsets_point_at_the_words():
    encoded = make_tokenizer()(TEXT, return_offsets_mapping=True)
    spans = encoded["offset_mapping"][1:]
    ids = encoded["input_ids"][1:]
    assert [TEXT[start:end] for start, end in spans] == [words()[token] for token in ids]


def test_every_object_and_label_is_usable():
    vocabulary = usable_vocabulary(make_tokenizer())
    assert len(vocabulary.objects) == len(object_words()) == 85
    assert len(vocabulary.labels) == 26


def test_words_are_distinct_and_unknown_ones_have_their_token():
    assert len(set(words())) == len(words())
    tokenizer = make_tokenizer()
    assert tokenizer("zebra")["input_ids"][1] == tokenizer.unk_token_id
