"""Train a classifier of texts from scratch: bag of words, deep averaging, convolution, or a recurrent network.

    python recipes/train_classifier.py --config rnn/tiny --output_dir runs/lstm
    python recipes/train_classifier.py --config dan/sst2 --dataset DATA --output_dir runs/dan-sst2
    python recipes/train_classifier.py --config textcnn/sst2 --dataset DATA --embeddings glove.6B.300d.txt

Papers: Iyyer et al. 2015, https://aclanthology.org/P15-1162; Kim 2014, https://arxiv.org/abs/1408.5882.
Input: --dataset builtin, GLUE's folder or Hub id (--task sst2, cola), or rows with a text and a label (--task text). The
vocabulary comes from the training texts. Every seed is a run of its own in output_dir/seed-N; beside them lie
results.json and results.md. The same command goes on after an interruption.
"""

from dataclasses import dataclass, field

from hftoolkit.arguments import EmbeddingArguments, ExampleArguments, ModelArguments, parse_arguments
from hftoolkit.errors import one_line_errors


@dataclass
class TaskArguments(EmbeddingArguments):
    task: str = field(
        default="text",
        metadata={"help": "one of GLUE's, or any texts with labels", "choices": ("sst2", "cola", "text")},
    )
    seeds: int = field(default=1, metadata={"help": "runs, with the seeds seed, seed + 1, ...", "min": 1})
    max_length: int = field(default=128, metadata={"help": "tokens of a text that are read", "min": 1})
    min_count: int = field(default=1, metadata={"help": "a word seen less often in training is unknown", "min": 1})
    text_column: str | None = field(default=None, metadata={"help": "of --task text; none is the only one"})
    label_column: str = field(default="label", metadata={"help": "of --task text"})
    validation_fraction: float = field(
        default=0.1, metadata={"help": "share of --task text held out without such data", "min": 0, "below": 1}
    )
    max_norm: float | None = field(
        default=None, metadata={"help": "longest weight vector of a class; Kim 2014 has 3", "above": 0}
    )


def main(model_args, data_args, task_args, training_args):
    from hftoolkit.data.text_labels import load_labelled_texts
    from hftoolkit.evaluation.glue import results_table, task_results, write_results
    from hftoolkit.training.series import finished_results, part_arguments, series

    columns = {name: getattr(task_args, name) for name in ("text_column", "label_column", "validation_fraction")}
    seeds = [training_args.seed + number for number in range(task_args.seeds)]
    arguments, runs, data, results = (model_args, data_args, task_args), {}, None, {}
    with series(training_args, arguments):
        for seed in seeds:
            part = part_arguments(training_args, f"seed-{seed}", seed=seed)
            runs[seed] = finished_results(part)
            if runs[seed] is None:
                data = data or load_labelled_texts(data_args, task_args.task, **columns)
                runs[seed] = train(*data, part, arguments)
        data = data or load_labelled_texts(data_args, task_args.task, **columns)
        found = {task_args.task: task_results(data[0], runs, {})}
        best = f"{training_args.output_dir}/seed-{found[task_args.task]['best_seed']}"
        if training_args.process_index == 0:
            results = write_results(training_args.output_dir, found, seeds, [best])
            print(results_table(results))
    return results


def train(task, splits, summary, training_args, arguments):
    """One run: a classifier with one seed."""
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, set_seed

    from hftoolkit.cards import card_of
    from hftoolkit.data.glue import tokenize_task
    from hftoolkit.evaluation.glue import answers_only, evaluate_rest, scorer
    from hftoolkit.loading import load_model, load_tokenizer
    from hftoolkit.run import run_training
    from hftoolkit.training.initial_embeddings import InitialEmbeddings
    from hftoolkit.training.max_norm import MaxNorm
    from hftoolkit.training.ordered_evaluation import OrderedEvaluationTrainer

    model_args, data_args, task_args = arguments

    # 1. Tokenizer: the words of the training texts.
    tokenizer = load_tokenizer(model_args, splits["train"]["sentence1"], min_count=task_args.min_count)

    # 2. Data.
    tokens = tokenize_task(splits, tokenizer, task_args.max_length, data_args.preprocessing_num_workers)

    # 3. Model.
    vectors = InitialEmbeddings(task_args.embeddings, tokenizer)
    set_seed(training_args.seed)
    fields = task.config_fields | vectors.config_fields
    model = load_model(AutoModelForSequenceClassification, model_args, tokenizer, **fields)
    vectors.given_to(model, task_args.freeze_embeddings)

    # 4. Train, evaluate, save.
    trainer = OrderedEvaluationTrainer(
        model=model,
        args=training_args,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=tokens["train"],
        eval_dataset=tokens["validation"],
        processing_class=tokenizer,
        compute_metrics=scorer(task),
        preprocess_logits_for_metrics=answers_only,
        callbacks=[] if task_args.max_norm is None else [MaxNorm(model, task_args.max_norm)],
    )
    options = {"card": card_of(model), "arguments": arguments, "data_summary": summary | vectors.facts}
    return run_training(trainer, **options, extra_metrics=lambda found: evaluate_rest(found, task, tokens, splits))


def parse(argv=None):
    return parse_arguments(
        ModelArguments, ExampleArguments, TaskArguments, "transformers.TrainingArguments", argv=argv
    )


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
