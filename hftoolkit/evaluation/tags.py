"""How good predicted tags are, word by word and entity by entity, and what is reached without a model."""

import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from hftoolkit.errors import MachineError
from hftoolkit.evaluation.metrics import entity_f1, token_accuracy


class TagScorer:
    """Scores predictions for one set of sentences: compute_metrics of a Trainer, and the file of predictions.

    Args:
        sentences: from load_tagged.
        rows: from label_first_subwords; predictions are of these rows, in their order.
        labels: names of the label ids.
        task: "ner" is scored by entities, "pos" by words.
        fallback: tag of words that have no token.
    """

    def __init__(self, sentences, rows, labels, task, fallback):
        self.sentences, self.labels, self.task, self.fallback = sentences, np.array(labels), task, fallback
        self.words, self.sentence = rows["words"], rows["sentence"]

    def __call__(self, prediction):
        """Scores of an EvalPrediction whose predictions are label ids, (rows, T)."""
        return self.score(self.tags(prediction.predictions))

    def score(self, tags):
        """Scores of tags, a list for each sentence."""
        return score_tags(self.sentences, tags, self.task)

    def tags(self, label_ids):
        """Predicted tags of every word of every sentence."""
        tags = [[self.fallback] * len(words) for words in self.sentences["tokens"]]
        for row, (words, sentence) in enumerate(zip(self.words, self.sentence, strict=True)):
            words = np.array(words)
            places = np.flatnonzero(words >= 0)
            for word, tag in zip(words[places], self.labels[label_ids[row][places]], strict=True):
                tags[sentence][word] = str(tag)
        return tags

    def write(self, path, tags):
        """Write word, right tag and predicted tag in CoNLL's columns, parted by tabs.

        Raises:
            MachineError: the file cannot be written.
        """
        path = Path(path)
        blocks = [
            "".join(f"{word}\t{right}\t{ours}\n" for word, right, ours in zip(*columns, strict=True))
            for columns in zip(self.sentences["tokens"], self.sentences["tags"], tags, strict=True)
        ]
        temporary = path.with_name(f".tmp-{path.name}")
        try:
            temporary.write_text("\n".join(blocks), encoding="utf-8", newline="\n")
            os.replace(temporary, path)
        except OSError as error:
            raise MachineError(f"{path} cannot be written: {error}") from error


def score_tags(sentences, tags, task):
    """Precision, recall and F1 of entities and accuracy of words for "ner", accuracy for "pos"; as shares."""
    return (entity_f1 if task == "ner" else token_accuracy)(tags, sentences["tags"])


def majority_tag(train):
    """The most frequent tag of the training data."""
    return Counter(tag for tags in train["tags"] for tag in tags).most_common(1)[0][0]


def baseline_scores(train, sentences, task):
    """Scores of tags that need no model, in the form of run_training's baselines.

    majority: the most frequent tag everywhere. each_words_tag: the most frequent tag of the word in the training
    data; words not seen there have the most frequent of all.
    """
    counts = defaultdict(Counter)
    for words, tags in zip(train["tokens"], train["tags"], strict=True):
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
    majority, known = majority_tag(train), {word: tags.most_common(1)[0][0] for word, tags in counts.items()}
    texts = sentences["tokens"]
    guesses = {
        "majority": [[majority] * len(words) for words in texts],
        "each_words_tag": [[known.get(word, majority) for word in words] for words in texts],
    }
    scores = {name: score_tags(sentences, tags, task) for name, tags in guesses.items()}
    return {name: {f"eval_{key}": value for key, value in found.items()} for name, found in scores.items()}
