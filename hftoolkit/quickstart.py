"""The main job from beginning to end, offline, on built-in data: `make quickstart`, or `hftoolkit quickstart`.

Each stage runs recipes through their `main`, as a user would from the command line, and returns rows of a table of what
was measured. A stage takes at most three minutes on two CPU cores.
"""

import json
import os
import sys
import time
from pathlib import Path

from hftoolkit.errors import UserError

PROMPTS = ["", "In the kitchen", "The"]


def run_gpt(folder):
    """Text -> byte-pair encoding -> GPT pretraining -> evaluation -> generation -> a checkpoint any program loads."""
    from hftoolkit.export import check_export
    from hftoolkit.recipes import evaluate_lm, generate, pretrain_gpt, train_tokenizer

    tokenizer, model = folder / "tokenizer", folder / "gpt"
    config = ["--config", "gpt/quickstart"]
    _say("1. A byte-level BPE tokenizer, trained on the built-in documents")
    _run(train_tokenizer, ["--config", "tokenizer/byte_bpe", "--output_dir", str(tokenizer)])
    _say("2. A small GPT, pretrained on packed documents")
    results = _run(pretrain_gpt, [*config, "--tokenizer", str(tokenizer), "--output_dir", str(model)])
    _say("3. Minimal pairs: does it prefer the grammatical sentence?")
    pairs = _run(evaluate_lm, ["--model_name_or_path", str(model), "--minimal_pairs", "builtin"])
    _say("4. Generation")
    _run(generate, ["--model_name_or_path", str(model), "--prompt", *PROMPTS, "--max_new_tokens", "60"])
    _say("5. The checkpoint, loaded by a process that does not have hftoolkit")
    differences = check_export(model)
    baselines = results["baselines"]
    return [
        ("GPT", "loss on held-out text, nats per token", results["eval_loss"]),
        ("", "  the true entropy of the text (nothing can be lower)", baselines["true_entropy"]),
        ("", "  bigram model on the same tokens", baselines["bigram_loss"]),
        ("", "  unigram model on the same tokens", baselines["unigram_loss"]),
        ("", "perplexity per token", results["eval_perplexity"]),
        ("", "minimal pairs, accuracy (chance 0.5)", pairs["accuracy"]),
        ("", "largest difference of the logits after export", max(differences.values())),
    ], {"GPT": str(model), "curves": str(model / "curves.png")}


def run_bert(folder):
    """Text -> WordPiece -> masked words and sentence pairs -> fine-tuning, beside the same model from scratch."""
    from hftoolkit.export import check_export
    from hftoolkit.recipes import finetune_glue, pretrain_bert

    model, glue = folder / "bert", folder / "bert-glue"
    _say("1. A small BERT, pretrained on masked words and sentence pairs")
    results = _run(pretrain_bert, ["--config", "bert/quickstart", "--output_dir", str(model)])
    _say("2. Fine-tuned: is a sentence acceptable? And the same model without pretraining")
    tuning = ["--config", "bert/glue_quickstart", "--model_name_or_path", str(model), "--output_dir", str(glue)]
    scores = _run(finetune_glue, tuning)["tasks"]["cola"]
    _say("3. The checkpoint, loaded by a process that does not have hftoolkit")
    differences = check_export(model)
    unigram = results["baselines"]["unigram"]
    correlation = {name: scores[name]["matthews_correlation"]["mean"] for name in ("model", "from_scratch")}
    return [
        ("BERT", "loss on held-out masked tokens, nats per token", results["eval_mlm_loss"]),
        ("", "  unigram model on the same tokens", unigram["eval_mlm_loss"]),
        ("", "accuracy of masked tokens", results["eval_mlm_accuracy"]),
        ("", "  always the most frequent token", unigram["eval_mlm_accuracy"]),
        ("", "next sentence or not, accuracy", results["eval_nsp_accuracy"]),
        ("", "  always the more frequent answer", results["baselines"]["majority"]["eval_nsp_accuracy"]),
        ("", "  shared words, logistic regression", results["baselines"]["word_overlap"]["eval_nsp_accuracy"]),
        ("", "acceptable or not, Matthews correlation", correlation["model"]),
        ("", "  the same model from scratch", correlation["from_scratch"]),
        ("", "largest difference of the outputs after export", max(differences.values())),
    ], {"BERT": str(model), "its curves": str(model / "curves.png"), "fine-tuned": str(glue / "cola" / "seed-0")}


def run_tasks(folder):
    """A small GPT -> GPT-1's fine-tuning, beside the same model from scratch and without the language model."""
    from hftoolkit.recipes import finetune_gpt, pretrain_gpt

    model = folder / "gpt"
    if not (model / "config.json").is_file():  # the first stage leaves it
        _say("0. A small GPT, pretrained on packed documents")
        _run(pretrain_gpt, ["--config", "gpt/quickstart", "--tokenizer", "byte_bpe", "--output_dir", str(model)])
    _say("1. Fine-tuned as GPT-1: is a sentence acceptable? And the same model without pretraining")
    tuning = ["--config", "gpt/finetune_quickstart", "--model_name_or_path", str(model)]
    tuned = folder / "gpt-tasks"
    scores = _run(finetune_gpt, [*tuning, "--from_scratch_baseline", "true", "--output_dir", str(tuned)])
    _say("2. The same without the language model as a second objective")
    alone = [*tuning, "--auxiliary_loss_weight", "0", "--output_dir", str(folder / "gpt-tasks-alone")]
    without = _run(finetune_gpt, alone)["tasks"]["cola"]["model"]["matthews_correlation"]["mean"]
    scores = {
        name: found["matthews_correlation"]["mean"]
        for name, found in scores["tasks"]["cola"].items()
        if name in ("model", "from_scratch")
    }
    return [
        ("GPT-1", "acceptable or not, Matthews correlation", scores["model"]),
        ("", "  the same model from scratch", scores["from_scratch"]),
        ("", "  without the language model beside it", without),
    ], {"tuned GPT": str(tuned / "cola" / "seed-0")}


def run_in_context(folder):
    """A small GPT that learns a task from demonstrations in its prompt, and not from demonstrations with wrong labels."""
    from hftoolkit.recipes import in_context, pretrain_gpt

    model, study = folder / "in-context-gpt", folder / "in-context"
    _say("1. A small GPT, pretrained on lists of words with labels that are new in each document")
    _run(pretrain_gpt, ["--config", "gpt/in_context_pretrain", "--output_dir", str(model)])
    _say("2. Words it is to label, behind 0 to 16 demonstrations with gold or random labels")
    options = ["--shots", "0", "1", "4", "16", "--variants", "gold", "random", "--output_dir", str(study)]
    found = _run(in_context, ["--config", "gpt/in_context_study", "--model_name_or_path", str(model), *options])
    accuracy = {(row["variant"], row["shots"]): row["accuracy"]["mean"] for row in found["summary"]}
    rows = [(f"  {shots} demonstrations, gold labels", accuracy["gold", shots]) for shots in (1, 4, 16)]
    rows = [("no demonstrations, accuracy (chance 0.5)", accuracy["none", 0]), *rows]
    rows.append(("  16 demonstrations, random labels", accuracy["random", 16]))
    first = ["ICL"] + [""] * (len(rows) - 1)
    return [(what, measure, value) for what, (measure, value) in zip(first, rows, strict=True)], {
        "few shots": str(study / "figure.png")
    }


def run_t5(folder):
    """A small T5, pretrained to fill gaps -> one model for several text-to-text tasks, beside the same from scratch."""
    from hftoolkit.export import check_export
    from hftoolkit.recipes import finetune_t5, pretrain_t5, train_tokenizer

    texts, tokenizer, model, tuned = (folder / name for name in ("t5-texts", "t5-tokenizer", "t5", "t5-tasks"))
    _say("1. A unigram tokenizer, trained on the built-in documents and on the words of the tasks")
    _write_texts(texts, ("cola", "sst2"))
    options = ["--vocab_size", "1024", "--dataset", str(texts), "--output_dir", str(tokenizer)]
    _run(train_tokenizer, ["--config", "tokenizer/unigram", *options])
    _say("2. A small T5, pretrained by span corruption")
    results = _run(
        pretrain_t5, ["--config", "t5/quickstart", "--tokenizer", str(tokenizer), "--output_dir", str(model)]
    )
    _say("3. Fine-tuned on two tasks at once, as text; and the same model without pretraining")
    tuning = ["--config", "t5/finetune_quickstart", "--model_name_or_path", str(model), "--output_dir", str(tuned)]
    scores = _run(finetune_t5, tuning)["tasks"]
    _say("4. The checkpoint, loaded by a process that does not have hftoolkit")
    differences = check_export(model)
    unigram, rows = results["baselines"]["unigram"], []
    for name, metric, title in (
        ("sst2", "accuracy", "a good or a bad feeling, accuracy (chance 0.5)"),
        ("cola", "matthews_correlation", "acceptable or not, Matthews correlation"),
    ):
        rows.append(("", title, scores[name]["model"][metric]["mean"]))
        rows.append(("", "  the same model from scratch", scores[name]["from_scratch"][metric]["mean"]))
    malformed = sum(found["model"]["malformed"]["mean"] for found in scores.values()) / len(scores)
    return [
        ("T5", "loss on held-out gaps, nats per token of text", results["eval_text_loss"]),
        ("", "  unigram model on the same tokens", unigram["eval_text_loss"]),
        ("", "accuracy in gaps", results["eval_text_accuracy"]),
        ("", "  always the most frequent token", unigram["eval_text_accuracy"]),
        *rows,
        ("", "answers that are malformed, share", malformed),
        ("", "largest difference of the outputs after export", max(differences.values())),
    ], {"T5": str(model), "tuned T5": str(tuned / "seed-0")}


def _write_texts(folder, names):
    """Built-in documents and the training texts of text-to-text tasks, as JSON lines."""
    from hftoolkit.arguments import ExampleArguments
    from hftoolkit.data.microworld import make_documents
    from hftoolkit.data.text_to_text import text_tasks
    from hftoolkit.data.text_to_text_rows import load_text_tasks, training_texts

    tasks = text_tasks(names)
    examples, _ = load_text_tasks(tasks, ExampleArguments(builtin_examples=1000), {}, None, None)
    texts = [document["text"] for document in make_documents(1000)] + list(training_texts(tasks, examples))
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


STAGES = {"gpt": run_gpt, "bert": run_bert, "tasks": run_tasks, "in_context": run_in_context, "t5": run_t5}


def main(stage="all", output_dir=None):
    """Run one stage or all; print the table of what was measured; return the rows.

    Raises:
        UserError: an unknown stage, or an output folder that holds something already.
    """
    names = list(STAGES) if stage == "all" else [stage]
    if names[0] not in STAGES:
        raise UserError(f"no stage {stage!r}; the stages are all, {', '.join(STAGES)}")
    folder = _new_folder(output_dir)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    rows, paths, start = [], {}, time.monotonic()
    for name in names:
        began = time.monotonic()
        new_rows, new_paths = STAGES[name](folder)
        rows += [*new_rows, ("", f"stage {name}, seconds", time.monotonic() - began)]
        paths |= new_paths
    _show(rows, paths | {"run": str(folder)}, time.monotonic() - start)
    (folder / "quickstart.json").write_text(json.dumps([{"what": what, "value": value} for _, what, value in rows]))
    return rows


def _run(recipe, argv):
    """Call a recipe as its command line would be."""
    return recipe.main(*recipe.parse(argv))


def _new_folder(output_dir):
    """The folder of this quickstart: the one asked for, or the first free runs/quickstart-N."""
    if output_dir is not None:
        folder = Path(output_dir)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} exists and is not empty; choose another --output_dir")
    else:
        folder = next(f for n in range(1, 10**6) if not (f := Path("runs") / f"quickstart-{n}").exists())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _say(line):
    sys.stdout.write(f"\n=== {line}\n")
    sys.stdout.flush()


def _show(rows, paths, seconds):
    _say("What was measured")
    for what, measure, value in rows:
        sys.stdout.write(f"{what:6}{measure:55}{value:>10.4g}\n")
    sys.stdout.write(f"\nin {seconds:.0f} seconds\n")
    for name, path in paths.items():
        sys.stdout.write(f"{name:12}{path}\n")
