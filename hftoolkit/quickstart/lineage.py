"""Before the Transformer: counts, word2vec, bag of words, averaging, convolution, recurrence, ELMo, sequence to sequence."""

from .steps import run, say

CLASSIFIERS = (
    ("bow", "bag of words"),
    ("dan", "average of word vectors"),
    ("textcnn", "convolution"),
    ("rnn", "bidirectional LSTM"),
)


def run_words(folder):
    """Word vectors by counting and by prediction: are the nearest words of the same kind?"""
    from hftoolkit.recipes import train_word2vec

    found = {}
    for objective, title in (("ppmi_svd", "counts"), ("skipgram", "skip-gram")):
        say(f"Word vectors: {title}")
        options = ["--objective", objective, "--output_dir", str(folder / f"words-{objective}")]
        found[objective] = run(train_word2vec, ["--config", "word2vec/quickstart", *options])
    chance = found["skipgram"]["baselines"]["random_vectors"]["same_category"]
    return [
        ("words", "nearest words of the same kind, counts with SVD", found["ppmi_svd"]["same_category"]),
        ("", "  skip-gram (word2vec)", found["skipgram"]["same_category"]),
        ("", "  random vectors", chance),
    ], {"words": str(folder / "words-skipgram" / "words.png")}


def run_classifiers(folder):
    """Four classifiers from scratch: is a sentence acceptable? The order of its words decides."""
    from hftoolkit.recipes import train_classifier

    rows, paths = [("order", "acceptable or not, Matthews correlation: one answer for all", 0.0)], {}
    for name, title in CLASSIFIERS:
        say(f"Classifier: {title}")
        place = folder / name
        found = run(train_classifier, ["--config", f"{name}/quickstart", "--output_dir", str(place)])
        rows.append(("", f"  {title}", found["tasks"]["cola"]["model"]["matthews_correlation"]["mean"]))
    return rows, paths


def run_language_models(folder):
    """A feed-forward and a recurrent language model, beside counts of five tokens on the same text."""
    from hftoolkit.recipes import train_recurrent_lm

    found = {}
    for name, title in (("nnlm", "feed-forward"), ("rnn", "LSTM")):
        say(f"Language model: {title}")
        options = ["--config", f"{name}/lm_quickstart", "--output_dir", str(folder / f"{name}-lm")]
        found[name] = run(train_recurrent_lm, options)
    others = {name: row["eval_loss"] for name, row in found["rnn"]["baselines"].items()}
    return [
        ("LM", "loss on held-out text, nats per token: LSTM", found["rnn"]["eval_loss"]),
        ("", "  feed-forward, the eight tokens before", found["nnlm"]["eval_loss"]),
        ("", "  five-grams, Kneser-Ney", others["kneser_ney_5_gram"]),
        ("", "  unigrams", others["unigram"]),
        ("", "  the true entropy of the text (nothing can be lower)", others["true_entropy"]),
    ], {"LSTM": str(folder / "rnn-lm")}


def run_elmo(folder):
    """A language model in each direction over characters: a word has another vector in another sense."""
    from hftoolkit.recipes import pretrain_elmo

    say("ELMo: two language models, one from each side")
    found = run(pretrain_elmo, ["--config", "elmo/quickstart", "--output_dir", str(folder / "elmo")])
    return [
        ("ELMo", "loss on held-out words, nats per word", found["eval_loss"]),
        ("", "  unigram model on the same words", found["baselines"]["unigram_loss"]),
    ], {"ELMo": str(folder / "elmo")}


def run_seq2seq(folder):
    """An encoder-decoder of recurrent networks translates; the same without attention beside it."""
    from hftoolkit.recipes import train_translation

    found = {}
    for kind in ("general", "none"):
        say(f"Sequence to sequence: attention {kind}")
        options = ["--model_config.attention_type", kind, "--output_dir", str(folder / f"seq2seq-{kind}")]
        found[kind] = run(train_translation, ["--config", "seq2seq/quickstart", *options])
    return [
        ("seq2seq", "translation with attention, BLEU", found["general"]["test_bleu"]),
        ("", "  without attention", found["none"]["test_bleu"]),
    ], {"alignment": str(folder / "seq2seq-general" / "alignments.png")}
