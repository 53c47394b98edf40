"""Scores of answers that a model writes as text: each task's own metric, and how many answers are malformed.

A text that is none of a task's answers counts as a wrong one: another class, or the score -1, as in the authors' program.
It is counted under `malformed` as well, so that wrong answers can be told from none.
Metrics: GLUE's and SQuAD's of this package; ROUGE (Lin 2004, https://aclanthology.org/W04-1013) by rouge-score; BLEU and
chrF by sacrebleu.
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch

from hftoolkit.data.glue_tasks import TASKS
from hftoolkit.errors import MachineError
from hftoolkit.evaluation.glue import score, write_text
from hftoolkit.evaluation.squad import exact_match, word_f1
from hftoolkit.evaluation.translation import score_translations

HUNDREDS = ("bleu", "chrf")  # metrics out of 100, not 1


def generate_texts(model, tokenizer, rows, *, batch_size=32, max_new_tokens=32, num_beams=1):
    """What a model writes for each input, in their order.

    Args:
        rows: lists of token ids; those of like length are generated together.

    Returns:
        (texts without special tokens, how many did not end within max_new_tokens).
    """
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    found, endless, was_training = [None] * len(rows), 0, model.training
    model.eval()
    for begin in range(0, len(order), batch_size):
        batch = order[begin : begin + batch_size]
        longest = len(rows[batch[0]])
        ids = torch.full((len(batch), longest), tokenizer.pad_token_id)
        mask = torch.zeros(len(batch), longest, dtype=torch.long)
        for place, row in enumerate(batch):
            ids[place, : len(rows[row])], mask[place, : len(rows[row])] = torch.tensor(rows[row]), 1
        with torch.no_grad():
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                num_beams=num_beams,
                do_sample=False,
            )
        written = output[:, 1:]  # without the start token, which can be the padding or the end of sequence
        endless += int((written != tokenizer.eos_token_id).all(1).sum())
        for row, text in zip(batch, tokenizer.batch_decode(written, skip_special_tokens=True), strict=True):
            found[row] = text.strip()
    model.train(was_training)
    return found, endless


def score_answers(name, task, texts, examples, answers=None):
    """Metrics of one task by name, and `malformed`, the share of texts that are no answer.

    Args:
        name, task: of data.text_to_text.
        texts: one per example.
        examples: rows with label, answers or target, as data.text_to_text_rows makes them.
        answers: every answer as the tokenizer writes it, to its label; None is as the task writes it.
    """
    labels = [task.label(text, answers) for text in texts]
    found = {"malformed": sum(label is None for label in labels) / len(labels)}
    if name in TASKS:
        right = examples["label"][:]
        given = [_wrong(task, truth) if label is None else label for label, truth in zip(labels, right, strict=True)]
        return score(task, given, right) | found
    if name == "squad":
        pairs = list(zip(texts, examples["answers"][:], strict=True))
        for metric, compare in (("f1", lambda a, b: word_f1(a, b, empty_agree=False)), ("exact_match", exact_match)):
            found[metric] = statistics.fmean(max(compare(text, answer) for answer in known) for text, known in pairs)
        return found
    targets = examples["target"][:]
    if name == "translation":
        scores = score_translations(texts, targets)
        return found | {metric: scores[metric] for metric in ("bleu", "chrf", "bleu_signature")}
    return found | rouge(texts, targets)


def _wrong(task, label):
    """A label that is surely wrong: the next class, or a score outside the scale."""
    return -1.0 if task.is_score else (label + 1) % len(task.words)


def rouge(texts, references):
    """ROUGE-1, -2 and -Lsum, means of the F-measures with stemming, as the summaries of T5 are scored.

    Raises:
        MachineError: rouge-score is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MachineError("ROUGE needs the package rouge-score: pip install 'hftoolkit[text]'") from error
    names = ("rouge1", "rouge2", "rougeLsum")
    scorer = RougeScorer(names, use_stemmer=True)
    lines = [[text.replace(". ", ".\n") for text in side] for side in (references, texts)]
    scores = [scorer.score(reference, text) for reference, text in zip(*lines, strict=True)]
    return {name: statistics.fmean(found[name].fmeasure for found in scores) for name in names}


def simple_answers(name, task, train, examples):
    """Texts that need no model: the most frequent answer, the source itself, or a document's first sentence.

    Args:
        train, examples: rows as data.text_to_text_rows makes them.
    """
    if name in TASKS:
        labels = train["label"][:]
        label = statistics.fmean(labels) if task.is_score else statistics.mode(labels)
        return [task.target(label)] * len(examples)
    if name == "squad":
        return [statistics.mode(train["target"][:])] * len(examples)
    sources = [text.removeprefix(task.opening).strip() for text in examples["inputs"][:]]
    return sources if name == "translation" else [source.split(". ")[0] for source in sources]


@dataclass
class TextAnswers:
    """What a trainer needs to evaluate text-to-text tasks.

    Attributes:
        tasks: {name: TextTask}.
        examples: {name: {"train": Dataset, "validation": Dataset, ...}}, as data.text_to_text_rows makes them.
        answers: {name: every answer as the tokenizer writes it, to its label}.
        generation: max_new_tokens and num_beams.
    """

    tasks: dict
    examples: dict
    answers: dict
    generation: dict

    def write(self, model, tokenizer, rows, batch_size):
        """What the model writes, and how many texts did not end; see generate_texts."""
        return generate_texts(model, tokenizer, rows, batch_size=batch_size, **self.generation)

    def scores(self, name, split, texts, endless):
        """Metrics of one task by name; for free text also `unended`, the share of texts without an end."""
        task = self.tasks[name]
        found = score_answers(name, task, texts, self.examples[name][split], self.answers.get(name))
        return found | ({"unended": endless / len(texts)} if task.is_text else {})

    def average(self, metrics, prefix="eval_"):
        """Mean of the first metric of every task, out of 1."""
        firsts = [(name, task.metrics[0]) for name, task in self.tasks.items()]
        return statistics.fmean(metrics[f"{prefix}{n}_{m}"] / (100 if m in HUNDREDS else 1) for n, m in firsts)

    def simple_baselines(self):
        """What answers that need no model score, under the names of the model's own metrics."""
        found = {}
        for name, task in self.tasks.items():
            rows = self.examples[name]
            texts = simple_answers(name, task, rows["train"], rows["validation"])
            scores = score_answers(name, task, texts, rows["validation"])
            found |= {f"eval_{name}_{metric}": scores[metric] for metric in task.metrics}
        return {"baselines": {"simple": found}}


# Several seeds, and the same from scratch


def over_seeds(tasks, runs):
    """{task: {column: {metric: {"mean", "std", "values"}}}} of the columns model, from_scratch (if there) and simple.

    Args:
        runs: {"model": {seed: results of a run}, "from_scratch": ..., which may be missing}.
    """
    first = next(iter(runs["model"].values()))
    columns = runs | {"simple": {0: first["baselines"]["simple"]}}
    table = {}
    for name, task in tasks.items():
        table[name] = {}
        for column, found in columns.items():
            metrics = [m for m in (*task.metrics, "malformed") if f"eval_{name}_{m}" in next(iter(found.values()))]
            table[name][column] = {
                metric: _figures([results[f"eval_{name}_{metric}"] for results in found.values()])
                for metric in metrics
            }
    return table


def _figures(values):
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": deviation, "values": values}


def results_table(results):
    """The table of results.json in Markdown, times 100."""
    columns = [name for name in ("model", "from_scratch", "simple") if name in next(iter(results["tasks"].values()))]
    lines = [
        ["task", "metric", *(name.replace("_", " ") for name in columns)],
        ["---", "---", *["---:"] * len(columns)],
    ]
    for name, found in results["tasks"].items():
        for metric in found["model"]:
            scale = 1 if metric in HUNDREDS else 100
            cells = [_cell(found[column].get(metric), scale) for column in columns]
            lines.append([name, metric.replace("_", " "), *cells])
    seeds = results["seeds"]
    over = f"mean and deviation of the seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    note = f"Validation data, out of 100; {over}. A malformed answer counts as a wrong one. Simple: the most frequent answer, "
    note += "the untranslated source, the first sentence."
    return "\n".join(["# Text to text", "", *(f"| {' | '.join(line)} |" for line in lines), "", note, ""])


def _cell(figures, scale):
    if figures is None:
        return "-"
    deviation = figures["std"]
    return f"{scale * figures['mean']:.1f}" + ("" if deviation is None else f" ± {scale * deviation:.1f}")


def write_results(training_args, tasks, runs):
    """Write results.json and results.md into the folder of the whole, in the main process; returns the first's content."""
    results = {"seeds": list(runs["model"]), "tasks": over_seeds(tasks, runs)}
    if training_args.process_index == 0:
        write_text(Path(training_args.output_dir, "results.json"), json.dumps(results, indent=2) + "\n")
        write_text(Path(training_args.output_dir, "results.md"), results_table(results))
    return results
