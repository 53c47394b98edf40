"""What restoring text comes to without a neural network: the unigram distribution of the training text."""

import numpy as np

from hftoolkit.evaluation.bert_baselines import masked_unigram_baseline


def denoising_baselines(trainer, rows_of):
    """The unigram model on the very tokens of text that a DenoisingTrainer evaluates on.

    Sentinels and the end of sequence are left out on both sides: their order is given, and would flatter either.

    Args:
        rows_of: {"train": DenoisingRows, ...}.

    Returns:
        {"baselines": {"unigram": {metric: value}}} under the names of the model's own metrics.
    """
    if "validation" not in rows_of:
        return {}
    rows, is_text, labels = rows_of["validation"], trainer.is_text.cpu().numpy(), []
    for begin in range(0, len(rows), 64):
        batch = trainer.data_collator([rows[index] for index in range(begin, min(begin + 64, len(rows)))])
        targets = batch["labels"][batch["labels"] != -100].numpy()
        labels.append(targets[is_text[targets]])
    labels = np.concatenate(labels)
    if not len(labels):
        return {}
    unigram = masked_unigram_baseline(rows_of["train"].store.tokens, labels, len(is_text))
    found = {"eval_text_loss": unigram["unigram_loss"], "eval_text_accuracy": unigram["unigram_accuracy"]}
    return {"baselines": {"unigram": found}}
