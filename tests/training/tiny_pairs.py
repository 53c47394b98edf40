"""A second of BERT's pretraining on random tokens; as a script, one process of it.

python tests/training/tiny_pairs.py FOLDER '{"max_steps": 4}'
"""

import json
import sys

import torch
from transformers import TrainingArguments

from hftoolkit.errors import one_line_errors
from hftoolkit.models.modeling_bert import HftBertConfig, HftBertForMaskedLM, HftBertForPreTraining
from hftoolkit.run import run_training
from hftoolkit.training.bert_pretraining import BertPretrainingTrainer

VOCAB = 50
SIZES = dict(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=16)
ARGUMENTS = dict(
    **dict(per_device_train_batch_size=4, per_device_eval_batch_size=3, max_steps=6, learning_rate=1e-2),
    **dict(logging_steps=2, use_cpu=True, disable_tqdm=True, seed=3),
)
NO_DROPOUT = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)


def tiny_rows(count=48, seed=0):
    """Rows of different length with one to three masked tokens each, and a label of the pair."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index in range(count):
        length = 5 + index % 7
        ids = torch.randint(5, VOCAB, (length,), generator=generator)
        labels = torch.full_like(ids, -100)
        labels[1 : 2 + index % 3] = ids[1 : 2 + index % 3]
        rows.append({"input_ids": ids, "labels": labels, "next_sentence_label": int(ids.sum() % 2)})
    return rows


def collate(rows):
    """Pad to the longest row."""
    columns = {"input_ids": 0, "labels": -100}
    padded = {
        name: torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], True, value)
        for name, value in columns.items()
    }
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    mask = (torch.arange(lengths.max()) < lengths.unsqueeze(1)).long()
    pairs = torch.tensor([row["next_sentence_label"] for row in rows])
    return {**padded, "attention_mask": mask, "next_sentence_label": pairs}


def collate_without_pairs(rows):
    batch = collate(rows)
    del batch["next_sentence_label"]
    return batch


def tiny_trainer(folder, *, pairs=True, dropout=True, **changes):
    torch.manual_seed(0)
    head = HftBertForPreTraining if pairs else HftBertForMaskedLM
    return BertPretrainingTrainer(
        model=head(HftBertConfig(**SIZES, **({} if dropout else NO_DROPOUT))),
        args=TrainingArguments(str(folder), **ARGUMENTS | changes),
        data_collator=collate if pairs else collate_without_pairs,
        train_dataset=tiny_rows(),
        eval_dataset=tiny_rows(10, seed=1),
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    with one_line_errors():
        run_training(tiny_trainer(sys.argv[1], **json.loads(sys.argv[2])))
