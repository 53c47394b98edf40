"""Fine-tune a model on GLUE: one task or all, several seeds, the paper's table, and the files for GLUE's server.

    python recipes/finetune_glue.py --config bert/glue_tiny --output_dir runs/glue
    python recipes/finetune_glue.py --config bert/glue --model_name_or_path google-bert/bert-base-uncased --task mrpc

Papers: Wang et al. 2018, https://arxiv.org/abs/1804.07461; Devlin et al. 2018, https://arxiv.org/abs/1810.04805,
Section 4.1. Input: --dataset builtin, the folder of GLUE's TSV files (or one task's), or nyu-mll/glue.
Every task and seed is a run of its own in output_dir/TASK/seed-N; beside them lie results.json, results.md and
submission/. The same command goes on after an interruption.
"""

from dataclasses import dataclass, field

from hftoolkit.arguments import AdaptationArguments, ExampleArguments, ModelArguments, parse_arguments
from hftoolkit.data.glue_tasks import TASKS
from hftoolkit.errors import one_line_errors


@dataclass
class TaskArguments:
    task: str = field(
        default="all", metadata={"help": "one, or all that the data offer; AX is in MNLI", "choices": ("all", *TASKS)}
    )
    seeds: int = field(default=1, metadata={"help": "runs per task, with the seeds seed, seed + 1, ...", "min": 1})
    from_scratch_baseline: bool = field(default=False, metadata={"help": "also train the model with new weights"})
    max_length: int = field(default=128, metadata={"help": "tokens of a text or pair that are read", "min": 8})


def main(model_args, data_args, adaptation_args, task_args, training_args):
    from hftoolkit.data.glue import available_tasks, load_task
    from hftoolkit.evaluation.glue import results_table, task_results, write_results
    from hftoolkit.training.series import finished_results, part_arguments, series

    names = available_tasks(data_args) if task_args.task == "all" else [task_args.task]
    seeds = [training_args.seed + number for number in range(task_args.seeds)]
    kinds = ("seed", "scratch") if task_args.from_scratch_baseline else ("seed",)
    arguments, results, best = (model_args, data_args, adaptation_args, task_args), {"tasks": {}}, []
    with series(training_args, arguments):
        for name in names:
            runs, data = {kind: {} for kind in kinds}, None
            for kind, seed in [(kind, seed) for kind in kinds for seed in seeds]:
                part = part_arguments(training_args, f"{name}/{kind}-{seed}", seed=seed, task=name)
                found = finished_results(part)
                if found is None:
                    data = data or load_task(name, data_args)
                    found = fine_tune(TASKS[name], *data, part, arguments, from_scratch=kind == "scratch")
                runs[kind][seed] = found
            results["tasks"][name] = task_results(TASKS[name], runs["seed"], runs.get("scratch", {}))
            best.append(f"{training_args.output_dir}/{name}/seed-{results['tasks'][name]['best_seed']}")
            if training_args.process_index == 0:
                results = write_results(training_args.output_dir, results["tasks"], seeds, best)
    if training_args.process_index == 0:
        print(results_table(results))
    return results


def fine_tune(task, splits, summary, training_args, arguments, from_scratch=False):
    """One run: a task with one seed."""
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, set_seed

    from hftoolkit.data.glue import tokenize_task
    from hftoolkit.evaluation.glue import answers_only, evaluate_rest, scorer
    from hftoolkit.loading import load_model, load_tokenizer
    from hftoolkit.run import run_training
    from hftoolkit.training.adaptation import adapt, layer_decay_optimizer, with_new_weights
    from hftoolkit.training.ordered_evaluation import OrderedEvaluationTrainer

    model_args, data_args, adaptation_args, task_args = arguments

    # 1. Tokenizer.
    texts = (row[side] for row in splits["train"] for side in ("sentence1", "sentence2") if side in row)
    tokenizer = load_tokenizer(model_args, texts)

    # 2. Data.
    tokens = tokenize_task(splits, tokenizer, task_args.max_length, data_args.preprocessing_num_workers)

    # 3. Model.
    set_seed(training_args.seed)
    fields = task.config_fields | {"max_position_embeddings": task_args.max_length}
    model = load_model(AutoModelForSequenceClassification, model_args, tokenizer, **fields)
    model = with_new_weights(model) if from_scratch else adapt(model, adaptation_args)

    # 4. Train, evaluate, save.
    layer_decay = 1.0 if from_scratch else adaptation_args.layer_decay
    trainer = OrderedEvaluationTrainer(
        model=model,
        args=training_args,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=tokens["train"],
        eval_dataset=tokens["validation"],
        processing_class=tokenizer,
        compute_metrics=scorer(task),
        preprocess_logits_for_metrics=answers_only,
        optimizers=(layer_decay_optimizer(model, training_args, layer_decay), None),
    )
    options = {"card": "bert", "arguments": arguments, "data_summary": summary}
    return run_training(trainer, **options, extra_metrics=lambda found: evaluate_rest(found, task, tokens, splits))


def parse(argv=None):
    classes = (ModelArguments, ExampleArguments, AdaptationArguments, TaskArguments, "transformers.TrainingArguments")
    return parse_arguments(*classes, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
