"""Tokenizers of every kind, trained on a small text."""

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hftoolkit.tokenization import KINDS, counting, train_tokenizer
from hftoolkit.tokenization.pipelines import kind_of, make_normalizer, make_pre_tokenizer
from hftoolkit.tokenization.train import byte_symbols

VOCAB_SIZE = 300
LEARNT = ("byte_bpe", "gpt1_bpe", "wordpiece", "unigram", "word")


@pytest.fixture(scope="module")
def tokenizers(texts):
    return {kind: train(kind, texts) for kind in KINDS}


def train(kind, texts, vocab_size=VOCAB_SIZE, **options):
    if kind == "unigram":
        options.setdefault("num_sentinels", 10)
    return train_tokenizer(kind, texts, vocab_size, progress=False, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_seen_in_the_parts(kind, tokenizers, tmp_path):
    """So that a card names it for a tokenizer from anywhere."""
    tokenizers[kind].save_pretrained(tmp_path)
    assert kind_of(tokenizers[kind]) == kind_of(AutoTokenizer.from_pretrained(tmp_path)) == kind


def test_the_kind_of_other_makes():
    backend = Tokenizer(models.BPE())
    assert kind_of(PreTrainedTokenizerFast(tokenizer_object=backend)) == "bpe"
    backend.decoder = decoders.ByteLevel()
    splits = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(use_regex=False)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(splits)
    assert kind_of(PreTrainedTokenizerFast(tokenizer_object=backend)) == "byte_bpe"


def vocabulary_hash(tokenizer):
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return hashlib.sha256(json.dumps(state["model"], ensure_ascii=False).encode()).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_and_ids(kind, tokenizers):
    tokenizer = tokenizers[kind]
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    for role in ("bos", "eos", "pad", "unk"):
        assert getattr(tokenizer, f"{role}_token_id") is not None, role
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id), "padding would hide the end"
    ids = tokenizer("The small garden " + tokenizer.eos_token + tokenizer.pad_token)["input_ids"]
    assert tokenizer.eos_token_id in ids and tokenizer.pad_token_id in ids
    assert tokenizer.clean_up_tokenization_spaces is False
    assert tokenizer.chat_template is None and "<|im_start|>" not in tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("kind", "size"), [("byte_bpe", 280), ("gpt1_bpe", 120), ("wordpiece", 120), ("unigram", 120)]
)
def test_vocabulary_has_the_size_asked_for(kind, size, texts, caplog):
    with caplog.at_level(logging.WARNING, logger="hftoolkit"):
        assert len(train(kind, texts, size)) == size
    assert not caplog.text


def test_byte_bpe_is_made_as_gpt2s(tokenizers):
    tokenizer = tokenizers["byte_bpe"]
    assert tokenizer.bos_token == tokenizer.eos_token == tokenizer.unk_token == "<|endoftext|>"
    assert tokenizer.tokenize(" walk walk") == ["\u0120walk"] * 2, "a word carries the space before it"
    assert set(byte_symbols()) <= set(tokenizer.get_vocab())


def test_gpt1_bpe_lowers_and_marks_the_end_of_words(tokenizers):
    tokenizer = tokenizers["gpt1_bpe"]
    assert tokenizer.tokenize("WALK, walk") == ["walk</w>", ",</w>", "walk</w>"]
    assert tokenizer.decode(tokenizer("Walk, NA\u00cfVE").input_ids) == "walk , naive"
    alphabet = {c for c in tokenizer.get_vocab() if len(c) == 1}
    assert all(c + "</w>" in tokenizer.get_vocab() for c in alphabet), "both forms of every character"


def test_wordpiece_has_berts_template(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    pair = tokenizer("walk", "lamp stone")
    assert tokenizer.convert_ids_to_tokens(pair.input_ids) == ["[CLS]", "walk", "[SEP]", "lamp", "stone", "[SEP]"]
    assert pair.token_type_ids == [0, 0, 0, 1, 1, 1]
    assert tokenizer.tokenize("walkst")[1].startswith("##")
    assert tokenizer.model_input_names == ["input_ids", "token_type_ids", "attention_mask"]
    assert [tokenizer.convert_ids_to_tokens(i) for i in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_unigram_has_t5s_template_and_sentinels(tokenizers):
    tokenizer = tokenizers["unigram"]
    last = len(tokenizer) - 1
    assert [tokenizer.convert_tokens_to_ids(f"<extra_id_{i}>") for i in range(10)] == list(range(last, last - 10, -1))
    assert tokenizer.extra_special_tokens[-1] == "<extra_id_0>"
    ids = tokenizer("walk <extra_id_0> stone", "lamp").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == [
        *("\u2581walk", "<extra_id_0>", "\u2581stone", "</s>"),
        *("\u2581lamp", "</s>"),
    ]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "walk stone lamp"
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "</s>", "<unk>"], "as T5's"


def test_words_are_the_most_frequent(texts):
    tokenizer = train("word", texts, 20)
    normalizer, splitter = make_normalizer("word", True), make_pre_tokenizer("word")
    counts = Counter(w for t in texts for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(t)))
    expected = sorted(counts, key=lambda word: (-counts[word], word))[:17]
    assert tokenizer.convert_ids_to_tokens(list(range(20))) == ["<unk>", "<pad>", "<|endoftext|>", *expected]
    assert tokenizer("xylophone").input_ids == [tokenizer.unk_token_id]


def test_characters_are_those_of_the_text_in_order(texts, tokenizers):
    tokenizer = tokenizers["character"]
    alphabet = sorted(set("".join(texts)))
    assert tokenizer.convert_ids_to_tokens(list(range(3, len(tokenizer)))) == alphabet
    assert tokenizer("a\u4e2db").input_ids == [tokenizer.convert_tokens_to_ids(t) for t in ("a", "<unk>", "b")]


def test_bytes_are_their_ids():
    tokenizer = train_tokenizer("byte", None)
    text = "na\u00efve \U0001f600\x00\r\n"
    assert tokenizer(text).input_ids == list(text.encode())
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (256, 257, 258)


@pytest.mark.parametrize("kind", ("gpt1_bpe", "wordpiece", "word", "unigram"))
def test_lowercase_is_an_option(kind, texts):
    assert any(t != t.lower() for t in train(kind, texts, lowercase=False).tokenize("Walk"))
    assert all(t == t.lower() for t in train(kind, texts, lowercase=True).tokenize("Walk"))


def test_min_frequency_leaves_rare_characters_out():
    tokenizer = train("wordpiece", ["aab aab aab aab aqb"], 30, min_frequency=2)
    assert "q" not in tokenizer.get_vocab() and "a" in tokenizer.get_vocab()
    assert "q" in train("wordpiece", ["aab aab aab aab aqb"], 30).get_vocab(), "by default all are kept"


def test_model_max_length_is_kept(texts, tmp_path):
    tokenizer = train("byte_bpe", texts, model_max_length=7)
    assert len(tokenizer(texts[0], truncation=True).input_ids) == 7
    tokenizer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 7


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "byte"])
def test_long_documents_are_read_in_parts(kind, texts, monkeypatch):
    """The parts end where words end, so the vocabulary is that of the whole."""
    long = ["  \n".join(texts), "x" * 700, " " * 300 + "y"]
    whole = vocabulary_hash(train(kind, long))
    monkeypatch.setattr(counting, "MAX_CHARACTERS", 701)
    assert vocabulary_hash(train(kind, long)) == whole
    assert [*counting.parts_of("a" * 1500)] == ["a" * 701, "a" * 701, "a" * 98]


@given(text=st.text(st.sampled_from("ab \n")), size=st.integers(1, 9))
def test_parts_join_to_the_text_and_end_with_words(text, size):
    with mock.patch.object(counting, "MAX_CHARACTERS", size):
        parts = list(counting.parts_of(text))
    assert "".join(parts) == text and all(len(part) <= size for part in parts)
    for before, after in zip(parts, parts[1:], strict=False):
        assert after[0].isspace() or len(before) == size


SAME_IDS = """
import sys, json, hashlib
from hftoolkit.tokenization import train_tokenizer
texts = json.loads(sys.stdin.read())
for kind in ("byte_bpe", "gpt1_bpe", "wordpiece", "unigram", "word"):
    options = {"num_sentinels": 10} if kind == "unigram" else {}
    tokenizer = train_tokenizer(kind, texts, 300, progress=False, **options)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    print(kind, hashlib.sha256(json.dumps(model, ensure_ascii=False).encode()).hexdigest())
"""


def test_another_process_with_more_threads_learns_the_same(texts, tokenizers):
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": "4", "OMP_NUM_THREADS": "4"}
    result = subprocess.run(
        [sys.executable, "-c", SAME_IDS], input=json.dumps(texts), env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert dict(line.split() for line in result.stdout.splitlines()) == {
        kind: vocabulary_hash(tokenizers[kind]) for kind in LEARNT
    }


@pytest.mark.parametrize("kind", KINDS)
def test_an_iterator_and_a_list_give_the_same(kind, texts, tokenizers):
    assert vocabulary_hash(train(kind, iter(texts))) == vocabulary_hash(tokenizers[kind])


LOAD_ALONE = """
import sys, json
sys.modules["hftoolkit"] = None
from transformers import AutoTokenizer
folder, text = sys.argv[1:]
result = {}
for kind in json.loads(sys.stdin.read()):
    tokenizer = AutoTokenizer.from_pretrained(f"{folder}/{kind}")
    tokenizer.save_pretrained(f"{folder}/{kind}-again")
    again = AutoTokenizer.from_pretrained(f"{folder}/{kind}-again")
    ids = tokenizer(text)["input_ids"]
    assert ids == again(text)["input_ids"] and len(again) == len(tokenizer)
    result[kind] = [dict(tokenizer(text)), tokenizer.decode(ids), tokenizer.special_tokens_map, len(tokenizer)]
    assert type(tokenizer).__module__.startswith("transformers.")
print(json.dumps(result))
"""


@pytest.mark.export
def test_plain_transformers_loads_every_kind(texts, tokenizers, tmp_path):
    text = "The small NA\u00cfVE garden, 42 <|endoftext|> walks!\r\n"
    for kind, tokenizer in tokenizers.items():
        tokenizer.save_pretrained(tmp_path / kind)
        files = {path.name for path in (tmp_path / kind).iterdir()}
        assert files == {"tokenizer.json", "tokenizer_config.json"}
        assert str(tmp_path) not in (tmp_path / kind / "tokenizer_config.json").read_text()
    command = [sys.executable, "-c", LOAD_ALONE, str(tmp_path), text]
    result = subprocess.run(command, input=json.dumps(list(KINDS)), capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for kind, theirs in json.loads(result.stdout.splitlines()[-1]).items():
        ours = tokenizers[kind]
        ids = ours(text)["input_ids"]
        assert theirs == [dict(ours(text)), ours.decode(ids), ours.special_tokens_map, len(ours)], kind
