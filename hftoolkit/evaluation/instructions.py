"""How well a model answers: what its training rows hold, simple baselines, and greedy answers that a judge knows to be true.

On built-in questions the microworld itself is the judge: an answer is true, false but well formed, or malformed.
Shapes: B = prompts of a batch, T = tokens of the longest.
"""

import logging
from collections import Counter

import numpy as np
import torch

from hftoolkit.data.instructions import describe_instructions, is_conversational
from hftoolkit.data.labelled import fingerprint
from hftoolkit.data.microworld.instruction_tasks import FALSE, MALFORMED, TRUE, judge_answer, read_prompt

logger = logging.getLogger(__name__)

VERDICTS = {TRUE: "true_answers", FALSE: "false_answers", MALFORMED: "malformed_answers"}
IGNORE_INDEX = -100


def generate_answers(model, tokenizer, prompts, *, batch_size=32, max_new_tokens=32):
    """What a model writes behind each prompt, taking the likeliest token at every step.

    Args:
        prompts: lists of token ids; those of like length are answered together, padded on the left.

    Returns:
        (texts without special tokens, in the order of the prompts; how many did not end within max_new_tokens). A
        prompt that leaves no room in the model's context gets no answer: an empty text, without end.
    """
    limit = getattr(model.config, "max_position_embeddings", None) or 10**9
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
    texts, endless, was_training = [""] * len(prompts), 0, model.training
    endless += sum(len(prompts[number]) >= limit for number in order)
    order = [number for number in order if len(prompts[number]) < limit]
    model.eval()
    for begin in range(0, len(order), batch_size):
        chosen = order[begin : begin + batch_size]
        T = len(prompts[chosen[0]])
        ids = torch.full((len(chosen), T), tokenizer.pad_token_id)
        mask = torch.zeros(len(chosen), T, dtype=torch.long)
        for row, number in enumerate(chosen):
            start = T - len(prompts[number])
            ids[row, start:], mask[row, start:] = torch.tensor(prompts[number]), 1
        with torch.no_grad():
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=min(max_new_tokens, limit - T),
                do_sample=False,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        written = output[:, T:].cpu()
        endless += int((written != tokenizer.eos_token_id).all(1).sum())
        for number, row in zip(chosen, written.tolist(), strict=True):
            kept = row[: row.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in row else row
            texts[number] = tokenizer.decode(kept, skip_special_tokens=True)
    model.train(was_training)
    return texts, endless


def judge_answers(questions, texts):
    """Shares of true, false and malformed answers to built-in questions.

    Example:
        one true answer of two, the other one not a sentence
        -> {"true_answers": 0.5, "false_answers": 0.0, "malformed_answers": 0.5}
    """
    counts = Counter(judge_answer(question, text) for question, text in zip(questions, texts, strict=True))
    return {name: counts[verdict] / len(questions) for verdict, name in VERDICTS.items()}


class AnswerJudge:
    """Lets a model answer built-in questions, and has the answers judged.

    Args:
        rows: built-in examples, as text or as conversations; the first `limit` are asked.
        spare: tokens that an answer may have more than the longest true one.
    """

    def __init__(self, rows, tokenizer, *, limit=200, batch_size=32, spare=8):
        self.rows = [rows[number] for number in range(min(limit, len(rows)))]
        self.tokenizer, self.batch_size = tokenizer, batch_size
        self.max_new_tokens = spare + max(len(tokenizer(answer_of(row))["input_ids"]) for row in self.rows)
        self.questions = [question_of(row) for row in self.rows]

    def __call__(self, trainer):
        """Shares of the answers by verdict, and of those that did not end."""
        if trainer.is_fsdp_enabled:  # whose weights are never in one place
            return {}
        model = trainer.accelerator.unwrap_model(trainer.model)
        prompts = [self._prompt(row) for row in self.rows]
        options = {"batch_size": self.batch_size, "max_new_tokens": self.max_new_tokens}
        with trainer.compute_loss_context_manager():
            texts, endless = generate_answers(model, self.tokenizer, prompts, **options)
        return judge_answers(self.questions, texts) | {"endless_answers": endless / len(texts)}

    def _prompt(self, row):
        """Token ids of a prompt, as in training."""
        if not is_conversational(row):
            return self.tokenizer(row["prompt"])["input_ids"]
        turns = row["messages"][:-1]
        return self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]

    def baselines(self, train):
        """Verdicts on two who know no story: one gives the most frequent answer of the training data, one guesses.

        The guess is one of the well-formed answers to the question, each with the same probability.
        """
        frequent = Counter(answer_of(row) for row in train).most_common(1)[0][0]
        known = np.mean([1 / (1 + len(read_prompt(question).alternatives)) for question in self.questions])
        found = {
            "most_frequent_answer": judge_answers(self.questions, [frequent] * len(self.questions)),
            "guess_of_right_form": {"true_answers": float(known), "false_answers": float(1 - known)},
        }
        return {name: {f"eval_{key}": value for key, value in shares.items()} for name, shares in found.items()}


def question_of(row):
    """The prompt of a built-in example, as the microworld wrote it."""
    return row["messages"][-2]["content"] if is_conversational(row) else row["prompt"]


def answer_of(row):
    """The completion of a built-in example."""
    return row["messages"][-1]["content"] if is_conversational(row) else row["completion"]


def scored_tokens(rows):
    """All tokens of token rows that are predicted, (N,): the labels, without the first of each row."""
    parts = [np.asarray(row["labels"][1:], dtype=np.int64) for row in rows]
    labels = np.concatenate([np.empty(0, dtype=np.int64), *parts])
    return labels[labels != IGNORE_INDEX]


def unigram_baseline(train, validation, vocab_size):
    """Loss and accuracy of a model that knows only how frequent each token is in answers (add-one smoothing)."""
    counts = np.bincount(scored_tokens(train), minlength=vocab_size) + 1
    targets = scored_tokens(validation)
    nats = -np.log(counts / counts.sum())[targets]
    return {"eval_loss": float(nats.mean()), "eval_token_accuracy": float((targets == counts.argmax()).mean())}


def before_training(log_history):
    """What the evaluation at step 0 has found (--eval_on_start true), or nothing."""
    first = next((entry for entry in log_history if entry.get("step") == 0 and "eval_loss" in entry), {})
    left_out = ("eval_runtime", "eval_tokens_per_second", "eval_answer_tokens")
    return {name: value for name, value in first.items() if name.startswith("eval_") and name not in left_out}


def describe_data(name, examples, rows, max_length, skipped=()):
    """Name, fingerprint and counts of the data of a run, for its record.

    Args:
        examples: the splits as they were loaded.
        rows: {"train": token rows, "validation": token rows or None}.
        skipped: a line for each row that was left out.
    """
    counts = {
        split: describe_instructions(examples[split]) | describe_token_rows(part, max_length, len(examples[split]))
        for split, part in rows.items()
        if part is not None
    }
    train = counts["train"]
    if cut := train.get("at_max_length"):
        message = "%d of %d training examples have max_length %d tokens: what is cut off an answer does not teach where to stop"
        logger.warning(message, cut, train["examples"], max_length)
    facts = {"name": name, "fingerprint": fingerprint(examples["train"])} | counts
    return facts | ({"skipped_rows": len(skipped)} if skipped else {})


def describe_token_rows(rows, max_length, num_examples):
    """Counts for the record: tokens, those of answers, examples that were cut at max_length, and those left out.

    Args:
        rows: token rows of a trainer, packed or not.
        num_examples: before they were tokenised.
    """
    lengths = [length for row in rows for length in row.get("seq_lengths") or [len(row["input_ids"])]]
    counts = {"rows": len(rows), "tokens": sum(lengths), "answer_tokens": len(scored_tokens(rows))}
    notable = {
        "at_max_length": sum(length == max_length for length in lengths),
        "left_out": num_examples - len(lengths),
    }
    return counts | {name: number for name, number in notable.items() if number}
