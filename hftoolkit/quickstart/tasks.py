"""A pretrained GPT learns tasks: GPT-1's fine-tuning, demonstrations in its prompt, answers and rewards."""

import sys

from .steps import run, say


def run_tasks(folder):
    """A small GPT -> GPT-1's fine-tuning, beside the same model from scratch and without the language model."""
    from hftoolkit.recipes import finetune_gpt, pretrain_gpt

    model = folder / "gpt"
    if not (model / "config.json").is_file():  # the first stage leaves it
        say("0. A small GPT, pretrained on packed documents")
        run(pretrain_gpt, ["--config", "gpt/quickstart", "--tokenizer", "byte_bpe", "--output_dir", str(model)])
    say("1. Fine-tuned as GPT-1: is a sentence acceptable? And the same model without pretraining")
    tuning = ["--config", "gpt/finetune_quickstart", "--model_name_or_path", str(model)]
    tuned = folder / "gpt-tasks"
    scores = run(finetune_gpt, [*tuning, "--from_scratch_baseline", "true", "--output_dir", str(tuned)])
    say("2. The same without the language model as a second objective")
    alone = [*tuning, "--auxiliary_loss_weight", "0", "--output_dir", str(folder / "gpt-tasks-alone")]
    without = run(finetune_gpt, alone)["tasks"]["cola"]["model"]["matthews_correlation"]["mean"]
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
    say("1. A small GPT, pretrained on lists of words with labels that are new in each document")
    run(pretrain_gpt, ["--config", "gpt/in_context_pretrain", "--output_dir", str(model)])
    say("2. Words it is to label, behind 0 to 16 demonstrations with gold or random labels")
    options = ["--shots", "0", "1", "4", "16", "--variants", "gold", "random", "--output_dir", str(study)]
    found = run(in_context, ["--config", "gpt/in_context_study", "--model_name_or_path", str(model), *options])
    accuracy = {(row["variant"], row["shots"]): row["accuracy"]["mean"] for row in found["summary"]}
    rows = [(f"  {shots} demonstrations, gold labels", accuracy["gold", shots]) for shots in (1, 4, 16)]
    rows = [("no demonstrations, accuracy (chance 0.5)", accuracy["none", 0]), *rows]
    rows.append(("  16 demonstrations, random labels", accuracy["random", 16]))
    first = ["ICL"] + [""] * (len(rows) - 1)
    return [(what, measure, value) for what, (measure, value) in zip(first, rows, strict=True)], {
        "few shots": str(study / "figure.png")
    }


def run_rlhf(folder):
    """A small GPT -> answers to questions (SFT) -> a reward model -> PPO, judged by those who know the truth."""
    from hftoolkit.recipes import pretrain_gpt, rlhf

    model, whole = folder / "gpt", folder / "rlhf"
    if not (model / "config.json").is_file():  # the first stage leaves it
        say("0. A small GPT, pretrained on packed documents")
        run(pretrain_gpt, ["--config", "gpt/quickstart", "--tokenizer", "byte_bpe", "--output_dir", str(model)])
    say("1. It learns to answer, its answers are learned to be compared, and it learns from the comparison")
    report = run(
        rlhf, ["--config", "gpt/rlhf_quickstart", "--model_name_or_path", str(model), "--output_dir", str(whole)]
    )
    say("2. Answers before and after")
    for sample in report["samples"][:3]:
        sys.stdout.write(f"\n{sample['prompt']}\n")
        for name, found in sample["answers"].items():
            sys.stdout.write(f"  {name:6}{' '.join(found['text'].split()) or '(nothing)'}  [{found['true']:g}]\n")
    start, tuned, last = report["stages"]
    return [
        ("RLHF", "sampled answers: 1 true, 0 false, -1 malformed; start", start["true_reward"]),
        ("", "  after SFT", tuned["true_reward"]),
        ("", "  after PPO", last["true_reward"]),
        ("", "reward model, held-out pairs in order (chance 0.5)", report["reward_model"]["accuracy"]),
        ("", "learned reward after SFT", tuned["learned_reward"]),
        ("", "  after PPO", last["learned_reward"]),
        ("", "KL of PPO to SFT, nats per answer", last["kl"]),
        ("", "PPO wins against SFT, by the judge (ties are halves)", last["true_win_rate"]),
    ], {"RLHF": str(whole / "report.md"), "rewards over KL": str(whole / "over_optimisation.png")}
