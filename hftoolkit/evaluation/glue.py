"""GLUE's scores, the files its server takes, and the table of the paper.

Papers: Wang et al. 2018, https://arxiv.org/abs/1804.07461; Devlin et al. 2018, https://arxiv.org/abs/1810.04805,
Table 1: F1 for QQP and MRPC, Spearman for STS-B, Matthews for CoLA, accuracy for the others; the average takes MNLI's
two sets as two and leaves WNLI out.
"""

import json
import os
import statistics
from pathlib import Path

from hftoolkit.data.glue_tasks import SCORES, TASKS, Task
from hftoolkit.data.gpt_tasks import GPT_TASKS
from hftoolkit.errors import MachineError
from hftoolkit.evaluation.choices import baseline_scores
from hftoolkit.evaluation.metrics import FUNCTIONS

NOT_AVERAGED = ("wnli",)
SUBMISSION = "submission"


def answers_only(logits, labels):
    """preprocess_logits_for_metrics: the best class of each row, or its score, (B, C) -> (B,)."""
    logits = logits[0] if isinstance(logits, tuple) else logits
    return logits[:, 0] if logits.shape[-1] == 1 else logits.argmax(-1)


def scorer(task):
    """compute_metrics for Trainer: the metrics of a task by name, from the answers that answers_only keeps."""
    return lambda prediction: score(task, prediction.predictions, prediction.label_ids)


def score(task, answers, labels):
    """{metric: value} of a task."""
    found = {}
    for name in task.metrics:
        found |= FUNCTIONS[name](answers, labels)
    return found


def majority_baseline(task, splits):
    """Results of always giving the most frequent class of the training data, or their mean score."""
    labels = splits["train"]["label"][:]
    answer = statistics.mode(labels) if task.names else statistics.fmean(labels)
    results = {}
    for split, prefix in (("validation", "eval_"), ("validation_mismatched", "eval_mismatched_")):
        if split in splits:
            right = splits[split]["label"][:]
            found = score(task, [answer] * len(right), right)
            results |= {f"{prefix}{name}": value for name, value in found.items()}
    return results


def evaluate_rest(trainer, task, tokens, splits):
    """What is left after a run's own evaluation: MNLI's other sets, and the files for GLUE's server.

    Every process calls it; the main one writes `submission/` into the run's folder.

    Args:
        tokens: {split: tokenised rows}.
        splits: {split: examples}, in the same order.

    Returns:
        Results by their names in all_results.json, with the majority baseline.
    """
    results = {}
    for split in [split for split in tokens if split not in ("train", "validation")]:
        answers = trainer.predict(tokens[split]).predictions
        if split == "validation_mismatched":
            found = score(task, answers, splits[split]["label"][:])
            results |= {f"eval_mismatched_{name}": value for name, value in found.items()}
            continue
        labelled = "label" in splits[split].column_names
        if trainer.is_world_process_zero() and not (labelled and split == "test"):
            path = Path(trainer.args.output_dir, SUBMISSION, task.submission(split))
            write_submission(path, task, splits[split]["idx"][:], answers)
        if labelled and split == "test":  # SICK's; GLUE's tests have no labels
            results |= {
                f"test_{name}": value for name, value in score(task, answers, splits[split]["label"][:]).items()
            }
        elif labelled:  # the diagnostic set: R3 of the GLUE paper
            found = FUNCTIONS["matthews_correlation"](answers, splits[split]["label"][:])
            results |= {f"eval_{split}_{name}": value for name, value in found.items()}
    return results | {"baselines": {"majority": majority_baseline(task, splits)}}


def evaluate_task(trainer, name, tokens, splits):
    """What is left after a run's own evaluation, of any task that GPT's head is fine-tuned on; see evaluate_rest."""
    if name != "choice":
        return evaluate_rest(trainer, GPT_TASKS[name], tokens, splits)
    results = {"baselines": baseline_scores(splits["train"], splits["validation"])}
    if "test" in splits:
        answers = trainer.predict(tokens["test"]).predictions
        found = score(GPT_TASKS[name], answers, splits["test"]["label"][:])
        results |= {f"test_{metric}": value for metric, value in found.items()}
    return results


def write_submission(path, task, indices, answers):
    """A file for GLUE's server: `index<TAB>prediction`, by index, labels as the task's own files write them.

    Example:
        index   prediction
        0       not_entailment
    """
    rows = sorted(zip(indices, answers, strict=True))
    if task.written is None:
        text = [f"{index}\t{min(max(float(answer), SCORES[0]), SCORES[1]):.3f}" for index, answer in rows]
    else:
        text = [f"{index}\t{task.written[int(answer)]}" for index, answer in rows]
    write_text(path, "\n".join(["index\tprediction", *text, ""]))


def write_text(path, text):
    """Write a file whole or not at all.

    Raises:
        MachineError: it cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.writing")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error}") from error


# Several tasks and seeds


def task_results(task, runs, scratch):
    """Scores of one task over the seeds, and which seed is best on its development set.

    Args:
        runs: {seed: results of its run}.
        scratch: the same of the model that was not pretrained; may be empty.

    Returns:
        {"best_seed", "model": {metric: {"mean", "std", "values"}}, "majority": ..., "from_scratch": ... if there};
        the sample standard deviation is None of a single seed.
    """
    best = max(runs, key=lambda seed: runs[seed][f"eval_{task.metrics[0]}"])
    majority = {0: next(iter(runs.values()))["baselines"]["majority"]}
    columns = {"model": runs, "from_scratch": scratch, "majority": majority}
    return {"best_seed": best} | {name: _over_seeds(task, found) for name, found in columns.items() if found}


def _over_seeds(task, runs):
    table = {}
    for name in (*task.metrics, "mismatched_accuracy", "ax_matthews_correlation"):
        values = [results[f"eval_{name}"] for results in runs.values() if f"eval_{name}" in results]
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 else None
            table[name] = {"mean": statistics.fmean(values), "std": deviation, "values": values}
    return table


def averages(tasks):
    """{column: mean of the figures that the paper averages}, and under "figures" their number.

    Args:
        tasks: {task: task_results}.
    """
    averaged = [row for row in _rows(tasks) if row[3]]
    columns = dict.fromkeys(column for row in averaged for column in row[2])
    complete = [column for column in columns if all(column in row[2] for row in averaged)]
    return {column: statistics.fmean(row[2][column]["mean"] for row in averaged) for column in complete} | {
        "figures": len(averaged)
    }


def _rows(tasks):
    """(task as in the paper, metric, {column: figures}, whether it is averaged), in the order of the paper."""
    rows = []
    for name in [*(name for name in GPT_TASKS if name in tasks), *(name for name in tasks if name not in GPT_TASKS)]:
        found = tasks[name]
        task = GPT_TASKS.get(name, Task(name, (), "", None, None, tuple(found["model"]), ()))
        columns = {column: figures for column, figures in found.items() if isinstance(figures, dict)}
        for metric in found["model"]:
            cells = {column: figures[metric] for column, figures in columns.items() if metric in figures}
            title, shown = task.title, metric.removeprefix("mismatched_").removeprefix("ax_")
            if name == "mnli":
                title = {"accuracy": "MNLI-m", "mismatched_accuracy": "MNLI-mm"}.get(metric, "AX")
            first = metric == task.metrics[0] or metric == "mismatched_accuracy"
            averaged = first and name in TASKS and name not in NOT_AVERAGED
            rows.append((title, shown.replace("_", " "), cells, averaged))
    return rows


def results_table(results):
    """The table of results.json in Markdown, times 100."""
    tasks, seeds = results["tasks"], results["seeds"]
    columns = [name for name in ("model", "from_scratch", "majority") if any(name in row[2] for row in _rows(tasks))]
    head = ["task", "metric", *(name.replace("_", " ") for name in columns)]
    lines = [head, ["---", "---", *["---:"] * len(columns)]]
    for title, metric, cells, _ in _rows(tasks):
        lines.append([title, metric, *(_cell(cells.get(column)) for column in columns)])
    average = results["average"]
    if average["figures"]:
        lines.append(["average", f"of {average['figures']}", *(_cell({"mean": average.get(c)}) for c in columns)])
    over = (
        f"mean and standard deviation of the seeds {', '.join(map(str, seeds))}"
        if len(seeds) > 1
        else f"seed {seeds[0]}"
    )
    note = f"Development sets, times 100; {over}."
    if average["figures"]:
        note += " The average takes the first metric of a task, MNLI twice, not WNLI."
    title = "# GLUE" if average["figures"] else "# Results"
    return "\n".join([title, "", *(f"| {' | '.join(line)} |" for line in lines), "", note, ""])


def _cell(figures):
    if figures is None or figures["mean"] is None:
        return "-"
    deviation = figures.get("std")
    return f"{100 * figures['mean']:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def write_results(folder, tasks, seeds, best_parts):
    """Write results.json, results.md and submission/ of the best seeds into the folder of the whole.

    Args:
        tasks: {task: task_results}.
        best_parts: folders of the runs whose answers are submitted.

    Returns:
        The content of results.json.
    """
    results = {"seeds": seeds, "tasks": tasks, "average": averages(tasks)}
    for part in best_parts:
        for path in sorted(Path(part, SUBMISSION).glob("*.tsv")):
            write_text(Path(folder, SUBMISSION, path.name), path.read_text(encoding="utf-8"))
    write_text(Path(folder, "results.json"), json.dumps(results, indent=2) + "\n")
    write_text(Path(folder, "results.md"), results_table(results))
    return results
