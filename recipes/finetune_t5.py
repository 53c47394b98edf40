"""Fine-tune an encoder-decoder on text-to-text tasks, one or several at once: GLUE, SQuAD, translation, summaries.

    python recipes/finetune_t5.py --config t5/finetune_tiny --output_dir runs/t5-tasks
    python recipes/finetune_t5.py --config t5/finetune --model_name_or_path google-t5/t5-small --tasks sst2,mrpc,rte

Paper: Raffel et al. 2020, "T5", https://arxiv.org/abs/1910.10683, Sections 2.4 and 3.5.2, Appendix D.
Input: --dataset builtin, a folder that holds each task's own (GLUE's folders, squad/, translation/, summarization/), or a
Hub id; --sources.TASK gives one task another source. Every seed is a run of its own in output_dir/seed-N; beside them
lie results.json and results.md. The same command goes on after an interruption.
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments import ExampleArguments, ModelArguments, parse_arguments
from hftoolkit.data.text_to_text import check_choice, task_names, text_tasks
from hftoolkit.errors import one_line_errors


@dataclass
class TaskArguments:
    tasks: str = field(default="sst2", metadata={"help": "one or several with commas: sst2,mrpc,squad,translation"})
    sources: dict = field(default_factory=dict, metadata={"help": "a data set of its own: --sources.TASK DATASET"})
    prefixes: dict = field(default_factory=dict, metadata={"help": "another prefix: --prefixes.TASK TEXT"})
    languages: list[str] | None = field(default=None, metadata={"help": "of a translation: source and target"})
    columns: list[str] | None = field(default=None, metadata={"help": "of summarization; none: document, summary"})
    mixing_limit: int | None = field(default=None, metadata={"help": "K: a task counts as so many at most", "min": 1})
    mixing_temperature: float = field(default=1.0, metadata={"help": "above 1: more equal tasks", "above": 0})
    seeds: int = field(default=1, metadata={"help": "runs, with the seeds seed, seed + 1, ...", "min": 1})
    from_scratch_baseline: bool = field(default=False, metadata={"help": "also train the model with new weights"})
    max_length: int = field(default=512, metadata={"help": "tokens of an input that are read", "min": 8})
    max_target_length: int = field(default=64, metadata={"help": "tokens of an answer at most", "min": 2})
    num_beams: int = field(default=1, metadata={"help": "1 is greedy", "min": 1})
    optimizer: Literal["adamw", "muon", "adafactor", "adamw_rms"] = field(
        default="adafactor", metadata={"help": "adafactor is T5's"}
    )

    def __post_init__(self):
        check_choice(self.tasks, self.prefixes, self.sources, self.languages, self.columns)


def main(model_args, data_args, task_args, training_args):
    from hftoolkit.data.text_to_text_rows import languages_of, load_text_tasks
    from hftoolkit.evaluation.text_to_text import results_table, write_results
    from hftoolkit.training.series import finished_results, part_arguments, series

    languages = languages_of(data_args, task_args.languages)
    tasks, data = text_tasks(task_names(task_args.tasks), task_args.prefixes, languages), None
    seeds = [training_args.seed + number for number in range(task_args.seeds)]
    kinds = {"model": "seed"} | ({"from_scratch": "scratch"} if task_args.from_scratch_baseline else {})
    arguments, runs = (model_args, data_args, task_args), {column: {} for column in kinds}
    with series(training_args, arguments):
        for column, seed in [(column, seed) for column in kinds for seed in seeds]:
            part = part_arguments(training_args, f"{kinds[column]}-{seed}", seed=seed)
            found = finished_results(part)
            if found is None:
                data = data or load_text_tasks(tasks, data_args, task_args.sources, languages, task_args.columns)
                found = fine_tune(tasks, *data, part, arguments, from_scratch=column == "from_scratch")
            runs[column][seed] = found
        results = write_results(training_args, tasks, runs)
    if training_args.process_index == 0:
        print(results_table(results))
    return results


def fine_tune(tasks, examples, summary, training_args, arguments, from_scratch=False):
    """One run: all tasks with one seed."""
    from transformers import AutoModelForSeq2SeqLM, DataCollatorForSeq2Seq, set_seed

    from hftoolkit.data.mixing import rows_of_run
    from hftoolkit.data.text_to_text_rows import encode_tasks, training_texts
    from hftoolkit.evaluation.text_to_text import TextAnswers
    from hftoolkit.loading import load_model, load_tokenizer
    from hftoolkit.run import run_training
    from hftoolkit.training.adaptation import with_new_weights
    from hftoolkit.training.optimizers import optimizer_and_schedule
    from hftoolkit.training.text_to_text import TextToTextTrainer

    # 1. Tokenizer.
    model_args, data_args, task_args = arguments
    tokenizer = load_tokenizer(model_args, training_texts(tasks, examples))

    # 2. Data: each task as text to text, then mixed.
    limits = (task_args.max_length, task_args.max_target_length, data_args.preprocessing_num_workers)
    tokens, answers, cut = encode_tasks(tasks, examples, tokenizer, *limits)
    train = rows_of_run(tokens, training_args, task_args.mixing_limit, task_args.mixing_temperature)

    # 3. Model.
    set_seed(training_args.seed)
    model = load_model(AutoModelForSeq2SeqLM, model_args, tokenizer)
    model = with_new_weights(model) if from_scratch else model

    # 4. Train, evaluate by what the model writes, save.
    generation = dict(max_new_tokens=task_args.max_target_length, num_beams=task_args.num_beams)
    evaluation = TextAnswers(tasks, examples, answers, generation)
    trainer = TextToTextTrainer(
        model=model,
        args=training_args,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        train_dataset=train,
        processing_class=tokenizer,
        tokens=tokens,
        evaluation=evaluation,
        optimizers=optimizer_and_schedule(task_args.optimizer, model, training_args),
    )
    found = {name: summary[name] | rates | cut[name] for name, rates in train.summary().items()}
    options = {"card": "t5", "arguments": arguments, "data_summary": summary | found}
    return run_training(trainer, **options, extra_metrics=lambda trainer: evaluation.simple_baselines())


def parse(argv=None):
    return parse_arguments(
        ModelArguments, ExampleArguments, TaskArguments, "transformers.TrainingArguments", argv=argv
    )


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
