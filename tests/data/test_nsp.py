"""Sentence pairs: the reference program's law, epochs, workers and resuming."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import skip_first_batches
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForPreTraining, Trainer, TrainerCallback, TrainingArguments

from hftoolkit.data.mlm import MaskedLanguageModeling
from hftoolkit.data.nsp import FullSentences, NextSentencePairs
from hftoolkit.data.sentence_pairs import draw_pairs, truncate_pairs, walk
from hftoolkit.data.training_rows import TrainingRows
from hftoolkit.errors import DataError
from hftoolkit.tokenization import train_tokenizer
from hftoolkit.training.epochs import TellEpoch

SHARES = dict(short_sequence_probability=0.1, random_next_probability=0.5)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("wordpiece", ["a small text of words, and some more words"], 60, progress=False)


def store_of(documents, first_id=5):
    """A store of documents given as lists of sentence lengths; each token is its place, so that ranges can be told."""
    lengths = [length for document in documents for length in document]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    edges = np.concatenate([[0], np.cumsum([len(document) for document in documents])]).astype(np.int64)
    return SimpleNamespace(
        tokens=np.arange(first_id, first_id + offsets[-1]).astype(np.int32),
        sentence_offsets=offsets,
        document_offsets=edges,
        summary=lambda: {"documents": len(documents)},
    )


@pytest.fixture(scope="module")
def store():
    rng = np.random.default_rng(0)
    return store_of([rng.integers(1, 30, rng.integers(0, 40)).tolist() for _ in range(60)])


def pairs_by_loop(documents, number, room, rng):
    """Pairs of one document by the reference's loop: (sentences of A, is_random)."""
    target = int(rng.integers(2, room + 1)) if rng.random() < 0.1 else room
    document, found, chunk, i = documents[number], [], [], 0
    while i < len(document):
        chunk.append(document[i])
        if i == len(document) - 1 or sum(chunk) >= target:
            a_end = int(rng.integers(1, len(chunk))) if len(chunk) >= 2 else 1
            is_random = len(chunk) == 1 or rng.random() < 0.5
            if is_random:
                i -= len(chunk) - a_end
            found.append((a_end, bool(is_random)))
            chunk = []
        i += 1
    return found


def test_the_law_of_the_reference(monkeypatch):
    """How often A has so many sentences and B is a stranger, against the loop over the same document."""
    document, room, repeats = [4, 7, 3, 9, 2, 6, 6, 1, 8, 5], 15, 4000
    rng = np.random.default_rng(1)
    theirs = Counter(pair for _ in range(repeats) for pair in pairs_by_loop([document], 0, room, rng))
    monkeypatch.setattr("hftoolkit.data.sentence_pairs.truncate_pairs", lambda first, *rest: [first * 0] * 4)
    store = store_of([document] * repeats)
    pairs = draw_pairs(store.sentence_offsets, store.document_offsets, room, rng, **SHARES)
    begin, end = (np.searchsorted(store.sentence_offsets, ends) for ends in (pairs.first_begin, pairs.first_end))
    ours = Counter(zip((end - begin).tolist(), pairs.is_random.tolist(), strict=True))
    assert set(ours) == set(theirs) and len(ours) >= 6
    for kind, number in theirs.items():
        assert abs(ours[kind] - number) < 5 * np.sqrt(2 * number) + 5, kind


def truncated_by_loop(first, second, room, rng):
    """google-research/bert, create_pretraining_data.py, `truncate_seq_pair`."""
    lost = [0, 0, 0, 0]
    while first + second > room:
        side = 0 if first > second else 2
        lost[side + int(rng.random() < 0.5)] += 1
        first, second = first - (side == 0), second - (side == 2)
    return lost


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 30))
def test_truncation_loses_as_many_as_the_loop(first, second, room):
    loop = truncated_by_loop(first, second, room, np.random.default_rng(0))
    front_a, back_a, front_b, back_b = truncate_pairs(
        np.array([first]), np.array([second]), room, np.random.default_rng(1)
    )
    assert (front_a + back_a, front_b + back_b) == (loop[0] + loop[1], loop[2] + loop[3])
    assert min(front_a, back_a, front_b, back_b) >= 0
    assert first - loop[0] - loop[1] >= 1 and second - loop[2] - loop[3] >= 1  # a side is never empty


def test_truncation_at_both_ends_alike():
    many = np.full(4000, 20)
    front_a, back_a, front_b, back_b = truncate_pairs(many, many, 20, np.random.default_rng(0))
    assert abs(front_a.mean() - 5) < 0.1 and abs(front_b.mean() - 5) < 0.1
    assert 2.2 < front_a.var() < 2.8  # 10 coins


def test_walk_example():
    assert walk(np.array([12, 12, 13]), 10).tolist() == [10, 12]


LENGTHS = st.lists(st.lists(st.integers(1, 12), max_size=8), min_size=2, max_size=8)


@given(documents=LENGTHS, max_length=st.integers(5, 30), seed=st.integers(0, 3))
def test_laws_of_pairs(tokenizer, documents, max_length, seed):
    if sum(map(bool, documents)) < 2:
        return
    store = store_of(documents, first_id=100)
    rows = NextSentencePairs(store, tokenizer, max_length, seed=seed)
    starts = store.sentence_offsets[store.document_offsets]
    first_tokens = set()
    for row in rows:
        ids, types = row["input_ids"], row["token_type_ids"]
        assert 5 <= len(ids) <= max_length and len(types) == len(ids)
        middle = int(types.argmax())
        first, second = ids[1 : middle - 1] - 100, ids[middle:-1] - 100
        assert ids[0] == tokenizer.cls_token_id and ids[middle - 1] == ids[-1] == tokenizer.sep_token_id
        assert types[:middle].sum() == 0 and types[middle:].all()
        assert (np.diff(first) == 1).all() and (np.diff(second) == 1).all() and len(first) and len(second)
        own, other = (np.searchsorted(starts, [side[0], side[-1]], side="right") for side in (first, second))
        assert own[0] == own[1] and other[0] == other[1]  # a side never crosses a document
        assert (own[0] != other[0]) == bool(row["next_sentence_label"])
        if not row["next_sentence_label"]:
            assert second[0] > first[-1]
        first_tokens.add(int(own[0]))
    assert len(first_tokens) == sum(map(bool, documents))  # every document begins pairs


def test_half_of_the_longer_chunks_have_a_stranger(tokenizer):
    store = store_of([[5] * 40] * 50)
    rows = NextSentencePairs(store, tokenizer, 43, seed=0, short_sequence_probability=0)
    labels = np.array([row["next_sentence_label"] for row in rows])
    assert abs(labels.mean() - 0.5) < 0.06
    assert NextSentencePairs(store, tokenizer, 43, seed=0, random_next_probability=0).summary()["random_next"] < 0.05


def test_strangers_come_from_all_other_documents_alike(tokenizer):
    store = store_of([[3] * 2000] * 4)
    rows = NextSentencePairs(store, tokenizer, 13, seed=0, short_sequence_probability=0, random_next_probability=1)
    counts = Counter()
    for row in rows:
        middle = int(row["token_type_ids"].argmax())
        counts[(row["input_ids"][1] - 5) // 6000, (row["input_ids"][middle] - 5) // 6000] += 1
    assert len(counts) == 12 and max(counts.values()) < 1.4 * min(counts.values())


def test_short_pairs(tokenizer):
    store = store_of([[1] * 120] * 300)
    full = NextSentencePairs(store, tokenizer, 63, seed=0, short_sequence_probability=0)
    some = NextSentencePairs(store, tokenizer, 63, seed=0, short_sequence_probability=1, random_next_probability=0)
    assert np.median([len(row["input_ids"]) for row in full]) == 63
    targets = np.array([len(row["input_ids"]) - 3 for row in some])
    assert set(range(2, 61)) <= set(targets.tolist())


def test_documents_of_one_sentence_get_strangers(tokenizer):
    rows = NextSentencePairs(store_of([[4], [], [5], [6]]), tokenizer, 20, seed=0)
    assert len(rows) == 3 and all(row["next_sentence_label"] == 1 for row in rows)


def ids_of(rows, indices=range(20)):
    return [row["input_ids"].tolist() for row in rows.__getitems__(list(indices))]


@pytest.mark.parametrize("kind", [NextSentencePairs, FullSentences])
def test_epochs(store, tokenizer, kind):
    rows, again = kind(store, tokenizer, 40, seed=3), kind(store, tokenizer, 40, seed=3)
    length, first = len(rows), ids_of(rows)
    for epoch in range(1, 6):
        rows.set_epoch(epoch)
        assert len(rows) == length == len(list(rows))
        assert rows[0]["epoch"] == epoch
        assert ids_of(rows) != first
    again.set_epoch(5)
    assert ids_of(again) == ids_of(rows)
    rows.set_epoch(0)
    assert ids_of(rows) == first != ids_of(kind(store, tokenizer, 40, seed=4))
    fixed = kind(store, tokenizer, 40, seed=3, redraw=False)
    fixed.set_epoch(5)
    assert ids_of(fixed) == first
    assert rows[-1]["index"] == length - 1
    with pytest.raises(IndexError):
        rows[length]


def batches(rows, tokenizer, **options):
    loader = DataLoader(rows, 4, collate_fn=MaskedLanguageModeling(tokenizer, seed=1), **options)
    return [{name: column.tolist() for name, column in batch.items()} for batch in loader]


@pytest.fixture(scope="module")
def few(tokenizer):
    """A store whose ids are the tokenizer's."""
    ordinary = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    rng = np.random.default_rng(0)
    store = store_of([rng.integers(1, 9, 6).tolist() for _ in range(10)])
    store.tokens = rng.choice(ordinary, len(store.tokens)).astype(np.uint16)
    return store


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("kind", [NextSentencePairs, FullSentences])
def test_workers_change_nothing(few, tokenizer, kind, workers):
    rows = kind(few, tokenizer, 24, seed=0)
    for epoch in (0, 1):
        rows.set_epoch(epoch)
        assert batches(rows, tokenizer, num_workers=workers) == batches(rows, tokenizer)


def test_workers_that_live_on_hear_of_the_next_epoch(few, tokenizer):
    rows = NextSentencePairs(few, tokenizer, 24, seed=0)
    collator = MaskedLanguageModeling(tokenizer, seed=1)
    loader = DataLoader(rows, 4, collate_fn=collator, num_workers=1, persistent_workers=True)
    for epoch in (0, 1):
        rows.set_epoch(epoch)
        assert [batch["labels"].tolist() for batch in loader] == [
            batch["labels"] for batch in batches(rows, tokenizer)
        ]


def test_workers_at_different_passes_do_not_disturb_each_other(few, tokenizer):
    pairs = NextSentencePairs(few, tokenizer, 24, seed=0)
    run = TrainingRows([(len(pairs) * 3, pairs)], seed=0)
    assert batches(run, tokenizer, num_workers=4) == batches(run, tokenizer)


class Recorder(TrainerCallback):
    """Keeps what the collator made, and stops the run after some steps."""

    def __init__(self, stop=None):
        self.stop = stop

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = control.should_save = state.global_step == self.stop


def recorded_run(few, tokenizer, folder, *, stop=None, resume=None):
    torch.manual_seed(0)
    seen = []
    collator = MaskedLanguageModeling(tokenizer, seed=1)

    def collate(rows):
        seen.append((rows[0]["epoch"], collator(rows)["input_ids"].tolist()))
        return collator(rows)

    sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    model = BertForPreTraining(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=24, **sizes))
    options = dict(num_train_epochs=3, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True)
    args = TrainingArguments(folder, per_device_train_batch_size=4, remove_unused_columns=False, **options)
    rows = NextSentencePairs(few, tokenizer, 24, seed=0)
    callbacks = [TellEpoch(), Recorder(stop)]
    Trainer(model=model, args=args, data_collator=collate, train_dataset=rows, callbacks=callbacks).train(
        resume_from_checkpoint=resume
    )
    return seen, -(-len(rows) // 4)


def test_a_resumed_run_sees_the_rows_of_its_epoch(few, tokenizer, tmp_path):
    whole, steps = recorded_run(few, tokenizer, tmp_path / "whole")
    stop = steps + 2  # in the middle of the second epoch
    recorded_run(few, tokenizer, tmp_path / "part", stop=stop)
    rest, _ = recorded_run(few, tokenizer, tmp_path / "part", resume=str(tmp_path / f"part/checkpoint-{stop}"))
    assert [epoch for epoch, _ in whole] == sorted([0, 1, 2] * steps)
    assert rest == whole[stop:]


def test_skipping_batches_changes_none(few, tokenizer):
    rows = NextSentencePairs(few, tokenizer, 24, seed=0)
    loader = DataLoader(rows, 4, collate_fn=MaskedLanguageModeling(tokenizer, seed=1))
    rest = [batch["labels"].tolist() for batch in skip_first_batches(loader, 2)]
    assert rest == [batch["labels"].tolist() for batch in loader][2:]


def test_full_sentences(store, tokenizer):
    rows = FullSentences(store, tokenizer, 40, seed=0)
    seen = []
    for row in rows:
        ids, positions = row["input_ids"], row["position_ids"]
        assert len(ids) <= 40
        begins = np.flatnonzero(positions == 0)
        for piece in np.split(np.arange(len(ids)), begins[1:]):
            assert ids[piece[0]] == tokenizer.cls_token_id and ids[piece[-1]] == tokenizer.sep_token_id
            assert positions[piece].tolist() == list(range(len(piece)))
            seen += [(ids[piece[1:-1]] - 5)]
    edges = set(store.sentence_offsets.tolist())
    assert all(int(piece[0]) in edges and int(piece[-1]) + 1 in edges for piece in seen)  # no sentence is longer
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(len(store.tokens)))  # every token once


def test_full_sentences_cut_what_is_too_long(tokenizer):
    rows = FullSentences(store_of([[4, 5, 3], [25]]), tokenizer, 12, seed=0)
    lengths = sorted(
        int(n)
        for row in rows
        for n in np.diff(np.append(np.flatnonzero(row["position_ids"] == 0), len(row["input_ids"])))
    )
    assert lengths == sorted([9 + 2, 3 + 2, 10 + 2, 10 + 2, 5 + 2])


@pytest.mark.parametrize("documents", [[[3, 4]], [[], [3, 4], []]])
def test_a_single_document_is_refused(tokenizer, documents):
    with pytest.raises(DataError, match="1 document: .*document_separator"):
        NextSentencePairs(store_of(documents), tokenizer, 20, seed=0)


def test_too_short_rows_and_wrong_shares_are_refused(store, tokenizer):
    with pytest.raises(ValueError, match="at least 5 .* got 4"):
        NextSentencePairs(store, tokenizer, 4, seed=0)
    with pytest.raises(ValueError, match="random_next_probability must be in 0..1, got 2"):
        NextSentencePairs(store, tokenizer, 8, seed=0, random_next_probability=2)
    with pytest.raises(ValueError, match="at least 3"):
        FullSentences(store, tokenizer, 2, seed=0)


@pytest.mark.parametrize("role", ["cls", "sep"])
def test_a_tokenizer_without_edges_is_refused(store, role):
    tokenizer = train_tokenizer("wordpiece", ["some words"], 60, progress=False)
    setattr(tokenizer, f"{role}_token", None)
    with pytest.raises(DataError, match=f"no {role}_token"):
        NextSentencePairs(store, tokenizer, 8, seed=0)
