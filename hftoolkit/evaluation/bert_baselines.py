"""What BERT's two pretraining tasks come to without a neural network.

Masked tokens: the unigram distribution of the training text, which knows no context. Next sentences: whether A and B
share words, weighed by their rarity, as a logistic regression on the overlap of the two bags of words.
"""

import numpy as np


def pretraining_baselines(trainer, stores):
    """Both baselines on the very tokens and pairs that a trainer evaluates on.

    Args:
        trainer: with train_dataset, eval_dataset and an eval_collator that masks, each row alike in any batch.
        stores: {"train": SentenceStore, ...}.

    Returns:
        {"baselines": {name: {metric: value}}} under the names of the model's own metrics.
    """
    rows, vocab_size, labels = trainer.eval_dataset, len(trainer.processing_class), []
    for begin in range(0, len(rows), 64):
        batch = trainer.eval_collator([rows[index] for index in range(begin, min(begin + 64, len(rows)))])
        labels.append(batch["labels"][batch["labels"] != -100].numpy())
    unigram = masked_unigram_baseline(stores["train"].tokens, np.concatenate(labels), vocab_size)
    baselines = {
        "unigram": {"eval_mlm_loss": unigram["unigram_loss"], "eval_mlm_accuracy": unigram["unigram_accuracy"]}
    }
    if "next_sentence_label" in rows[0]:
        overlap = overlap_baseline(trainer.train_dataset, rows)
        baselines["word_overlap"] = {"eval_nsp_accuracy": overlap["overlap_accuracy"]}
        baselines["majority"] = {"eval_nsp_accuracy": overlap["majority_accuracy"]}
    return {"baselines": baselines}


def masked_unigram_baseline(train_tokens, labels, vocab_size):
    """Loss and accuracy of guessing masked tokens by their frequency in the training text.

    Args:
        train_tokens: token ids, (N,).
        labels: the tokens to guess, any shape; -100 is skipped.

    Returns:
        {"unigram_loss": nats per masked token, "unigram_accuracy": share of the most frequent training token}; the
        distribution is smoothed towards the uniform one as the unigram of hftoolkit.evaluation.ngram (Witten-Bell).
    """
    counts = np.bincount(train_tokens, minlength=vocab_size)
    kinds = np.count_nonzero(counts)
    probabilities = (counts + kinds / vocab_size) / (counts.sum() + kinds)
    labels = np.asarray(labels).ravel()
    labels = labels[labels != -100]
    if not len(labels):
        return {"unigram_loss": None, "unigram_accuracy": None}
    return {
        "unigram_loss": float(-np.log(probabilities[labels]).mean()),
        "unigram_accuracy": float((labels == counts.argmax()).mean()),
    }


def overlap_baseline(pairs_train, pairs_validation, max_pairs=20000):
    """Accuracy of telling neighbours from strangers by the words that A and B share.

    Args:
        pairs_train, pairs_validation: sequences of rows with input_ids, token_type_ids and next_sentence_label, such
            as NextSentencePairs; of more than `max_pairs`, evenly spaced ones are read.

    Returns:
        {"overlap_accuracy": on the validation pairs, "majority_accuracy": of always guessing the more frequent label
        of the training pairs, "pairs": number of validation pairs}.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, validation = (_bags(pairs, max_pairs) for pairs in (pairs_train, pairs_validation))
    frequency = {}
    for first, second, _ in train:
        for token in first | second:
            frequency[token] = frequency.get(token, 0) + 1
    rarity = {token: np.log((len(train) + 1) / number) for token, number in frequency.items()}
    unseen = np.log(len(train) + 1)
    features, labels = _features(train, rarity, unseen)
    held_out, truth = _features(validation, rarity, unseen)
    if labels.all() or not labels.any():
        guessed = np.full(len(truth), labels[0])
    else:
        guessed = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels).predict(held_out)
    return {
        "overlap_accuracy": float((guessed == truth).mean()),
        "majority_accuracy": float((truth == (labels.mean() > 0.5)).mean()),
        "pairs": len(truth),
    }


def _bags(pairs, max_pairs):
    """(tokens of A, tokens of B, label); the first token, [CLS], and the last of each segment, [SEP], left out."""
    bags = []
    for index in np.linspace(0, len(pairs) - 1, min(len(pairs), max_pairs)).astype(int).tolist():
        row = pairs[index]
        ids, second = np.asarray(row["input_ids"]), np.asarray(row["token_type_ids"]) == 1
        bags.append((set(ids[~second][1:-1].tolist()), set(ids[second][:-1].tolist()), row["next_sentence_label"]))
    return bags


def _features(bags, rarity, unseen):
    """Shared words and shared rarity, each as a share of the smaller segment, and the logarithms of the sizes."""
    rows = []
    for first, second, _ in bags:
        shared = first & second
        weight, of_first, of_second = (
            sum(rarity.get(token, unseen) for token in bag) for bag in (shared, first, second)
        )
        smaller = min(len(first), len(second))
        rows.append(
            (
                len(shared) / smaller,
                weight / (min(of_first, of_second) + 1e-9),
                np.log1p(weight),
                np.log(len(first)),
                np.log(len(second)),
            )
        )
    return np.array(rows), np.array([bool(label) for _, _, label in bags])
