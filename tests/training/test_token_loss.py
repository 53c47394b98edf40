"""The evaluation loss is the mean over all tokens, whatever the batches."""

import math
import os
import signal

import datasets
import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from hftoolkit.data.language_modeling import PackedDocuments, collate_packed
from hftoolkit.errors import DataError, RunInterruptedError
from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptForCausalLM
from hftoolkit.run import run_training
from hftoolkit.training.token_loss import TokenLossTrainer

DOCUMENTS = [list(range(n)) for n in (3, 12, 7, 2, 9, 4)]


@pytest.fixture
def trainer(tmp_path):
    torch.manual_seed(0)
    sizes = dict(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=12)
    model = HftGptForCausalLM(HftGptConfig(**sizes, initializer_range=0.5, label_smoothing=0.2))
    rows = PackedDocuments(datasets.Dataset.from_dict({"input_ids": DOCUMENTS}), 12)
    args = TrainingArguments(output_dir=tmp_path, use_cpu=True, report_to="none", per_device_eval_batch_size=2)
    return TokenLossTrainer(model, args, collate_packed, eval_dataset=rows)


def by_document(model):
    """The definition: every document by itself, the sum of all losses over the number of predicted tokens."""
    total = count = 0
    for document in DOCUMENTS:
        logits = model.eval()(torch.tensor([document[:-1]])).logits[0]
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(document[1:]), reduction="sum"))
        count += len(document) - 1
    return total / count, count


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_equals_the_definition(trainer, batch_size):
    trainer.args.per_device_eval_batch_size = batch_size
    loss, tokens = by_document(trainer.model)
    metrics = trainer.evaluate()
    assert metrics["eval_tokens"] == tokens
    assert metrics["eval_loss"] == pytest.approx(loss, abs=1e-6)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)


def test_stock_evaluation_would_differ(trainer):
    """Why the class exists: Trainer's own mean of batch means is another number on these rows."""
    from transformers import Trainer

    theirs = Trainer.evaluate(trainer)["eval_loss"]
    assert abs(theirs - by_document(trainer.model)[0]) > 1e-3


class Watch(TrainerCallback):
    """Counts the batches of evaluations; sends SIGTERM at one of them."""

    def __init__(self, stop_at=None):
        self.batches, self.stop_at = 0, stop_at

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        assert len(eval_dataloader) >= 1
        self.batches += 1
        if self.batches == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


def test_callbacks_hear_of_every_batch_as_trainers_do(trainer):
    trainer.args.per_device_eval_batch_size = 1
    counts = []
    for evaluate in (trainer.evaluate, lambda: super(TokenLossTrainer, trainer).evaluate()):
        trainer.add_callback(watch := Watch())
        evaluate()
        trainer.remove_callback(watch)
        counts.append(watch.batches)
    assert counts == [3, 3]


def test_a_signal_in_the_last_evaluation_is_obeyed_at_once(trainer):
    trainer.args.per_device_eval_batch_size, trainer.args.max_steps = 1, 2
    trainer.train_dataset = trainer.eval_dataset
    trainer.add_callback(watch := Watch(stop_at=1))
    with pytest.raises(RunInterruptedError, match="SIGTERM after step 2 of 2; checkpoint-2 is saved"):
        run_training(trainer)
    assert watch.batches == 1


def test_processes_with_unequal_shares_ask_each_other_equally_often(trainer, monkeypatch):
    """Of three rows one process has two: a callback that asks all processes would otherwise wait for ever."""
    trainer.args.per_device_eval_batch_size, sums, counts = 1, [], []
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    monkeypatch.setattr(trainer.accelerator, "reduce", lambda totals, how: sums.append(totals) or totals)
    for rank in range(2):
        monkeypatch.setattr(TrainingArguments, "process_index", rank)
        trainer.add_callback(watch := Watch())
        trainer.token_loss(trainer.eval_dataset)
        trainer.remove_callback(watch)
        counts.append(watch.batches)
    total, tokens = (sums[0] + sums[1]).tolist()
    loss, expected_tokens = by_document(trainer.model)
    assert counts == [1, 1] and tokens == expected_tokens and total / tokens == pytest.approx(loss, abs=1e-6)


def test_leaves_the_model_in_training_mode(trainer):
    trainer.model.train()
    trainer.evaluate()
    assert trainer.model.training


@pytest.mark.parametrize("kind", ["T5", "Marian", "HftTransformer"])
def test_encoder_decoders_of_transformers_whose_loss_is_the_mean_of_a_batch(kind, tmp_path):
    """Exact in evaluation; and in training, one batch of 4 is two of 2 (of as many tokens) with accumulation."""
    import transformers

    from hftoolkit.models.modeling_transformer import HftTransformerConfig, HftTransformerForConditionalGeneration

    torch.manual_seed(0)
    sizes = dict(vocab_size=20, d_model=16, num_heads=2, d_kv=8, d_ff=16, num_layers=1, decoder_start_token_id=0)
    if kind == "T5":
        make = lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, dropout_rate=0.0))  # noqa: E731
    elif kind == "Marian":
        sizes = dict(vocab_size=20, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2)
        sizes |= dict(decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, dropout=0.0, pad_token_id=0)
        config = transformers.MarianConfig(**sizes, eos_token_id=1, decoder_start_token_id=0, init_std=0.5)
        make = lambda: transformers.MarianMTModel(config)  # noqa: E731
    else:
        sizes = dict(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        config = HftTransformerConfig(**sizes, hidden_dropout_prob=0.0, label_smoothing=0.0)
        make = lambda: HftTransformerForConditionalGeneration(config)  # noqa: E731
    model = make()
    rows = [{"input_ids": [5, 6, 1], "labels": list(range(2, 2 + length))} for length in (9, 2, 9, 2)]
    collate = transformers.DataCollatorForSeq2Seq(_Padding())
    found, weights = [], model.state_dict()
    for size in (1, 3, 4):
        args = TrainingArguments(tmp_path, use_cpu=True, report_to="none", per_device_eval_batch_size=size)
        found.append(TokenLossTrainer(model, args, collate, eval_dataset=rows).token_loss(rows))
    assert [tokens for _, tokens in found] == [22] * 3
    alone = [model.eval()(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).loss
             for row in rows]  # fmt: skip
    exact = sum(float(loss) * len(row["labels"]) for loss, row in zip(alone, rows, strict=True)) / 22
    assert [loss for loss, _ in found] == pytest.approx([exact] * 3, rel=1e-5)
    ends = []
    for size, accumulation in ((4, 1), (2, 2)):
        (model := make()).load_state_dict(weights)
        args = TrainingArguments(
            tmp_path, use_cpu=True, report_to="none", per_device_train_batch_size=size, max_steps=1, max_grad_norm=0,
            gradient_accumulation_steps=accumulation, optim="sgd", learning_rate=1.0, save_strategy="no",
            train_sampling_strategy="sequential", disable_tqdm=True,
        )  # fmt: skip
        trainer = TokenLossTrainer(model, args, collate, train_dataset=rows)
        trainer.train()
        ends.append(torch.cat([value.flatten() for value in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


class _Padding:
    """What a collator needs of a tokenizer."""

    padding_side, deprecation_warnings = "right", {}

    def pad(self, features, **kwargs):
        ids = torch.tensor([row["input_ids"] for row in features])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | {
            key: torch.tensor([row[key] for row in features]) for key in features[0] if key != "input_ids"
        }


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor cannot be used: .*model_config.label_smoothing"),
        ({"eval_strategy": "epoch"}, "eval_strategy is epoch, but there are no validation data"),
        ({"train_sampling_strategy": "group_by_length"}, "the batches have rows of like length already"),
    ],
)
def test_options_that_cannot_work(option, message, tmp_path):
    args = TrainingArguments(tmp_path, use_cpu=True, report_to="none", **option)
    with pytest.raises(DataError, match=message):
        TokenLossTrainer(torch.nn.Linear(1, 1), args, train_dataset=[[{"input_ids": [1]}]])
