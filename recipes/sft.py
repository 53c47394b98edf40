"""Supervised fine-tuning: a causal language model learns to answer, by TRL's SFTTrainer.

    python recipes/sft.py --config gpt/sft_tiny --output_dir runs/sft
    python recipes/sft.py --config gpt/sft --model_name_or_path runs/gpt --dataset DATA --packing true

Paper: Ouyang et al. 2022, "InstructGPT", https://arxiv.org/abs/2203.02155, Section 3.5 and Appendix C.1.
Input: --dataset builtin, builtin:instructions, a Hub id, or files in the forms of Alpaca, ShareGPT, OpenAI's messages, or
prompt and completion. Only answers are scored, the end token behind them too; in conversations (or with --chat true) by the
chat template of the tokenizer, or else ours. --packing true fills rows with examples that do not see one another.
An encoder-decoder answers as well: recipes/finetune_t5.py is its place.
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments import AdaptationArguments, ExampleArguments, ModelArguments, parse_arguments
from hftoolkit.errors import DataError, one_line_errors


@dataclass
class TaskArguments:
    chat: bool = field(default=False, metadata={"help": "make conversations of instructions and of prompts"})
    columns: list[str] | None = field(default=None, metadata={"help": "what prompt and completion are called"})
    validation_fraction: float = field(
        default=0.05, metadata={"help": "share held out where the source has no validation data", "min": 0, "below": 1}
    )
    on_bad_row: Literal["stop", "skip"] = field(
        default="stop",
        metadata={"help": "what a row that cannot be used does: stop the run, or be left out and counted"},
    )
    max_bad_rows: int = field(default=10, metadata={"help": "rows that may be left out", "min": 1})
    optimizer: Literal["trainer", "muon"] = field(
        default="trainer", metadata={"help": "muon updates hidden matrices; trainer is SFTConfig's optim"}
    )
    adamw_learning_rate: float | None = field(default=None, metadata={"help": "of the rest, with muon", "above": 0})
    judged_questions: int = field(
        default=200, metadata={"help": "built-in questions that are answered at every evaluation", "min": 1}
    )

    def __post_init__(self):
        if self.columns is not None and len(self.columns) != 2:
            raise ValueError(f"columns are two, of prompt and completion; got {', '.join(self.columns) or 'none'}")


def main(model_args, data_args, adaptation_args, task_args, training_args):
    from transformers import AutoModelForCausalLM, set_seed

    from hftoolkit.data.instructions import is_conversational, load_instructions, texts_of
    from hftoolkit.evaluation import instructions as evaluation
    from hftoolkit.loading import grow_embeddings, load_model, load_tokenizer
    from hftoolkit.run import run_training
    from hftoolkit.training.adaptation import adapt, tuning_optimizer
    from hftoolkit.training.instruction_settings import check_settings, prepare_for_chat, require_decoder
    from hftoolkit.training.instructions import instruction_trainer

    # 1. Data: examples in TRL's forms.
    require_decoder(model_args)
    if adaptation_args.adaptation == "frozen":
        raise DataError("adaptation: frozen trains a new head only, and here is none: take full or lora")
    skipped, chosen = [], ("validation_fraction", "chat", "columns", "on_bad_row", "max_bad_rows")
    splits = load_instructions(data_args, skipped=skipped, **{name: getattr(task_args, name) for name in chosen})
    train, validation = splits["train"], splits.get("validation")
    if validation is None and training_args.eval_strategy != "no":
        raise DataError("there are no validation data: give --validation_fraction above 0, or --eval_strategy no")

    # 2. Tokenizer and model; the tokens of a new chat template get embeddings.
    tokenizer = load_tokenizer(model_args, texts_of(train))
    check_settings(training_args, tokenizer, conversational := is_conversational(train[0]))
    set_seed(training_args.seed)
    sizes = {"max_position_embeddings": training_args.max_length} if training_args.max_length else {}
    model = load_model(AutoModelForCausalLM, model_args, tokenizer, **sizes)
    new_tokens = prepare_for_chat(tokenizer) if conversational else []
    grow_embeddings(model, tokenizer)
    model = adapt(model, adaptation_args, new_tokens)

    # 3. Train, evaluate, save.
    training_args.dataset_num_proc = training_args.dataset_num_proc or data_args.preprocessing_num_workers
    asks = data_args.dataset == "builtin" and validation is not None
    judge = evaluation.AnswerJudge(validation, tokenizer, limit=task_args.judged_questions) if asks else None
    optimizer = adaptation_args.layer_decay, task_args.optimizer, task_args.adamw_learning_rate
    trainer = instruction_trainer(
        judge=judge,
        model=model,
        args=training_args,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        optimizers=(tuning_optimizer(model, training_args, *optimizer), None),
    )

    def baselines(trainer):
        """What is reached without training, and by those who do not read the prompt."""
        if validation is None:
            return {}
        found = {"before_training": evaluation.before_training(trainer.state.log_history) or None}
        found["unigram"] = evaluation.unigram_baseline(trainer.train_dataset, trainer.eval_dataset, len(tokenizer))
        return {"baselines": found | (judge.baselines(train) if judge else {})}

    rows = {"train": trainer.train_dataset, "validation": trainer.eval_dataset}
    summary = evaluation.describe_data(data_args.dataset, splits, rows, training_args.max_length, skipped)
    rows_per_step = (
        training_args.train_batch_size * training_args.gradient_accumulation_steps * training_args.world_size
    )
    options = {"card": "sft", "data_summary": summary, "extra_metrics": baselines}
    options["arguments"] = (model_args, data_args, adaptation_args, task_args)
    tokens_per_step = rows_per_step * summary["train"]["tokens"] / summary["train"]["rows"]
    return run_training(trainer, **options, tokens_per_step=tokens_per_step)


def parse(argv=None):
    classes = (ModelArguments, ExampleArguments, AdaptationArguments, TaskArguments, "trl.SFTConfig")
    return parse_arguments(*classes, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
