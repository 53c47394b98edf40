"""Language models, pretrained: GPT, BERT, T5."""

import json

from .steps import run, say

PROMPTS = ["", "In the kitchen", "The"]


def run_gpt(folder):
    """Text -> byte-pair encoding -> GPT pretraining -> evaluation -> generation -> a checkpoint any program loads."""
    from hftoolkit.export import check_export
    from hftoolkit.recipes import evaluate_lm, generate, pretrain_gpt, train_tokenizer

    tokenizer, model = folder / "tokenizer", folder / "gpt"
    config = ["--config", "gpt/quickstart"]
    say("1. A byte-level BPE tokenizer, trained on the built-in documents")
    run(train_tokenizer, ["--config", "tokenizer/byte_bpe", "--output_dir", str(tokenizer)])
    say("2. A small GPT, pretrained on packed documents")
    results = run(pretrain_gpt, [*config, "--tokenizer", str(tokenizer), "--output_dir", str(model)])
    say("3. Minimal pairs: does it prefer the grammatical sentence?")
    pairs = run(evaluate_lm, ["--model_name_or_path", str(model), "--minimal_pairs", "builtin"])
    say("4. Generation")
    run(generate, ["--model_name_or_path", str(model), "--prompt", *PROMPTS, "--max_new_tokens", "60"])
    say("5. The checkpoint, loaded by a process that does not have hftoolkit")
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
    say("1. A small BERT, pretrained on masked words and sentence pairs")
    results = run(pretrain_bert, ["--config", "bert/quickstart", "--output_dir", str(model)])
    say("2. Fine-tuned: is a sentence acceptable? And the same model without pretraining")
    tuning = ["--config", "bert/glue_quickstart", "--model_name_or_path", str(model), "--output_dir", str(glue)]
    scores = run(finetune_glue, tuning)["tasks"]["cola"]
    say("3. The checkpoint, loaded by a process that does not have hftoolkit")
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


def run_t5(folder):
    """A small T5, pretrained to fill gaps -> one model for several text-to-text tasks, beside the same from scratch."""
    from hftoolkit.export import check_export
    from hftoolkit.recipes import finetune_t5, pretrain_t5, train_tokenizer

    texts, tokenizer, model, tuned = (folder / name for name in ("t5-texts", "t5-tokenizer", "t5", "t5-tasks"))
    say("1. A unigram tokenizer, trained on the built-in documents and on the words of the tasks")
    _write_texts(texts, ("cola", "sst2"))
    options = ["--vocab_size", "1024", "--dataset", str(texts), "--output_dir", str(tokenizer)]
    run(train_tokenizer, ["--config", "tokenizer/unigram", *options])
    say("2. A small T5, pretrained by span corruption")
    results = run(
        pretrain_t5, ["--config", "t5/quickstart", "--tokenizer", str(tokenizer), "--output_dir", str(model)]
    )
    say("3. Fine-tuned on two tasks at once, as text; and the same model without pretraining")
    tuning = ["--config", "t5/finetune_quickstart", "--model_name_or_path", str(model), "--output_dir", str(tuned)]
    scores = run(finetune_t5, tuning)["tasks"]
    say("4. The checkpoint, loaded by a process that does not have hftoolkit")
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
