"""Bag of words, deep averaging and convolution against their formulas and scikit-learn; wrong models are noticed."""

import copy

import numpy as np
import pytest
import torch
from small_models import HEADS, batch, gradients, randomise, real_answers
from torch import nn

from hftoolkit.models.layers_pooling import drop_words
from hftoolkit.models.modeling_bow import HftBowConfig, HftBowForSequenceClassification
from hftoolkit.models.modeling_dan import HftDanConfig, HftDanForSequenceClassification
from hftoolkit.models.modeling_textcnn import HftTextCnnConfig, HftTextCnnForSequenceClassification

TEXTS = [
    "a fine film",
    "a dull film",
    "fine , fine acting",
    "no film",
    "dull dull dull",
    "a film",
    "acting no fine",
    "so so",
]
LABELS = torch.tensor([2, 0, 2, 0, 0, 1, 1, 1])


def small(name, **changes):
    return next(head for head in HEADS if str(head) == f"{name}-ModelForSequenceClassification").model(**changes)


def test_the_optimum_of_a_bag_of_words_is_logistic_regression():
    """CountVectorizer and LogisticRegression of scikit-learn: the same probabilities, weights and bias, three classes."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    counter = CountVectorizer(token_pattern=r"\S+")
    counts = counter.fit_transform(TEXTS)
    theirs = LogisticRegression(C=2.0, tol=1e-10, max_iter=1000).fit(counts, LABELS.numpy())
    rows = [[counter.vocabulary_[word] + 1 for word in text.split()] for text in TEXTS]
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    model = HftBowForSequenceClassification(
        HftBowConfig(vocab_size=len(counter.vocabulary_) + 1, num_labels=3)
    ).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        loss = model(ids, attention_mask=ids.ne(0), labels=LABELS, num_items_in_batch=1).loss
        loss = loss + model.embed_tokens.weight.square().sum() / (2 * 2.0)
        loss.backward()
        return loss

    optimizer.step(closure)
    probabilities = model.eval()(ids, attention_mask=ids.ne(0)).logits.softmax(-1).detach().numpy()
    np.testing.assert_allclose(probabilities, theirs.predict_proba(counts), atol=1e-5)
    np.testing.assert_allclose(model.embed_tokens.weight.detach()[1:].T, theirs.coef_, atol=1e-4)
    assert (model.embed_tokens.weight[0] == 0).all()  # padding has no weight


def formula(model, ids):
    """Logits of one text by the papers' formulas, word by word."""
    words = model.embed_tokens.weight[ids]
    if "Bow" in type(model).__name__:
        return sum(words) + model.bias
    if "Dan" in type(model).__name__:
        hidden = sum(words) / len(words)
        for layer in model.layers:
            hidden = (layer.weight @ hidden + layer.bias).clamp(min=0)
        return model.score.weight @ hidden + model.score.bias
    features = []
    for convolution, size in zip(model.convolutions, model.config.filter_sizes, strict=True):
        zeros = words.new_zeros(size - 1, words.shape[1])
        padded = torch.cat([zeros, words, zeros])
        matches = [
            torch.relu((convolution.weight * padded[start : start + size].T).sum((1, 2)) + convolution.bias)
            for start in range(len(padded) - size + 1)
        ]
        features.append(torch.stack(matches).amax(0))
    return model.score.weight @ torch.cat(features) + model.score.bias


@pytest.mark.parametrize("name", ["bow", "dan", "textcnn"])
def test_is_the_formula(name):
    model, inputs = small(name), batch()
    texts = [ids[mask.bool()] for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    expected = torch.stack([formula(model, ids) for ids in texts])
    torch.testing.assert_close(model(**inputs).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wrong", ["mean of padded rows", "no rectifier", "another width", "windows of padding"])
def test_the_formulas_notice(wrong):
    name = "dan" if wrong in ("mean of padded rows", "no rectifier") else "textcnn"
    model, inputs = small(name), batch()
    right = model(**inputs).logits
    if wrong == "mean of padded rows":
        changed = model(inputs["input_ids"]).logits
    elif wrong == "no rectifier":
        hidden = torch.stack(
            [model.embed_tokens(inputs["input_ids"])[i, :n].mean(0) for i, n in enumerate((12, 8, 1))]
        )
        changed = model.score(nn.Sequential(*model.layers)(hidden))
    elif wrong == "another width":
        other = copy.deepcopy(model)
        other.convolutions[1].weight.data[..., 0] = 0
        changed = other(**inputs).logits
    else:  # a filter whose bias is large finds its strongest match where nothing stands
        model.convolutions[0].weight.data.neg_().abs_().neg_()
        model.embed_tokens.weight.data.abs_()
        model.convolutions[0].bias.data.fill_(9)
        right = model(**inputs).logits
        embeds = model.embed_tokens(inputs["input_ids"]) * inputs["attention_mask"].unsqueeze(-1)
        features = [torch.relu(conv(embeds.transpose(1, 2))).amax(-1) for conv in model.convolutions]
        changed = model.score(torch.cat(features, -1))
    assert (changed - right).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["bow", "dan"])
def test_the_order_of_words_is_lost(name):
    model, inputs = small(name), batch((12, 12))
    turned = inputs | dict(input_ids=inputs["input_ids"].flip(1))
    torch.testing.assert_close(real_answers(model, turned), real_answers(model, inputs), rtol=1e-5, atol=1e-5)
    model = small("textcnn")
    assert (real_answers(model, turned) - real_answers(model, inputs)).abs().max() > 1e-2


def test_an_n_gram_is_found_wherever_it_stands():
    """Kim 2014: the strongest match counts, not its place."""
    model = small("textcnn")
    frame = torch.full((1, 12), 7)
    texts = [frame.clone() for _ in range(3)]
    for text, place in zip(texts, (2, 5, 7), strict=True):
        text[0, place : place + 3] = torch.tensor([11, 12, 13])
    answers = [model(text).logits for text in texts]
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0])
    assert (model(frame).logits - answers[0]).abs().max() > 1e-2


def test_word_dropout():
    """A share of the real words, drawn anew; a text never loses all of them; none in evaluation."""
    torch.manual_seed(0)
    keep = torch.arange(40) < torch.tensor([[40], [1], [20]]).repeat(200, 1)
    dropped = drop_words(keep, 0.3)
    assert not (dropped & ~keep).any()
    assert dropped[::3].float().mean().item() == pytest.approx(0.7, abs=0.02)
    assert dropped.any(1).all()
    assert drop_words(keep, 0.0) is keep
    empty = torch.zeros(2, 4, dtype=torch.bool)
    assert not drop_words(empty, 0.5).any()
    assert drop_words(torch.zeros(2, 0, dtype=torch.bool), 0.5).shape == (2, 0)


def test_dropped_words_are_those_of_a_shorter_text():
    """In the mean of a DAN they are not zeros among the others."""
    model, inputs = small("dan", word_dropout=0.5).train(), batch((12,))
    torch.manual_seed(0)
    answer = model(**inputs).logits
    torch.manual_seed(0)
    kept = drop_words(inputs["attention_mask"].bool(), 0.5)
    assert 0 < kept.sum() < 12
    torch.testing.assert_close(answer, model.eval()(inputs["input_ids"][kept].unsqueeze(0)).logits)


def test_without_layers_a_dan_is_a_linear_classifier_of_the_mean():
    model = randomise(HftDanForSequenceClassification(HftDanConfig(vocab_size=99, hidden_size=8, num_hidden_layers=0)))
    inputs = batch((5,))
    mean = model.embed_tokens(inputs["input_ids"]).mean(1)
    torch.testing.assert_close(model(**inputs).logits, model.score(mean))


@pytest.mark.parametrize("name", ["bow", "dan", "textcnn", "lstm", "gru"])
def test_texts_without_a_word(name):
    """They get the answer of no evidence, alone or among others, and finite gradients."""
    model, inputs = small(name), batch((4, 3))
    inputs["attention_mask"][1] = 0
    empty = dict(input_ids=torch.zeros(1, 0, dtype=torch.long), attention_mask=torch.zeros(1, 0, dtype=torch.long))
    torch.testing.assert_close(model(**inputs).logits[1:], model(**empty).logits)
    found = gradients(model, **inputs, labels=torch.tensor([0, 1]))
    assert all(gradient.isfinite().all() for gradient in found.values())


@pytest.mark.parametrize(
    ("name", "targets"), [("dan", "all-linear"), ("textcnn", r"convolutions\.\d"), ("lstm", ["embed_tokens"])]
)
def test_adapters(name, targets):
    """LoRA of PEFT on what it knows of each: starts as the model, trains nothing else but the head, and merges."""
    from peft import LoraConfig, get_peft_model

    model, inputs = small(name), batch()
    before = real_answers(model, inputs)
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules=targets, r=4))
    torch.testing.assert_close(real_answers(adapted.eval(), inputs), before)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        adapted.train()(**inputs, labels=torch.tensor([0, 1, 2])).loss.backward()
        optimizer.step()
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "score" in name for name in trained) and any("lora_" in name for name in trained)
    after = real_answers(adapted.eval(), inputs)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(real_answers(adapted.merge_and_unload(), inputs), after, rtol=1e-5, atol=1e-5)


def test_a_cnn_reads_windows_longer_than_its_text():
    model = HftTextCnnForSequenceClassification(HftTextCnnConfig(vocab_size=9, embedding_size=4, filter_sizes=(5,)))
    assert model.eval()(torch.tensor([[3]])).logits.isfinite().all()
