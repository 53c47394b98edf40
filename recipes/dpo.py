"""Direct preference optimisation (DPO): a language model learns from preferences without a reward model, by TRL's DPOTrainer.

    python recipes/dpo.py --config gpt/dpo_tiny --output_dir runs/dpo
    python recipes/dpo.py --config gpt/dpo --model_name_or_path openai-community/gpt2 --dataset DATA --beta 0.1

Paper: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, Equation 7.
Input: --dataset as recipes/reward.py reads it: builtin or builtin:rankings, a Hub id, or files as HH-RLHF, TRL or
LLaMA-Factory have them. A ranking becomes all its pairs; those of equal answers are left out, and margins are not read.
The reference is the model before training: a copy, or with --adaptation lora the model without its updates.
Begin with a model that answers (recipes/sft.py): DPO moves an answer's probability relative to where it was.
An encoder-decoder cannot be trained so: TRL's trainer knows decoders only.
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments import AdaptationArguments, ExampleArguments, ModelArguments, parse_arguments
from hftoolkit.errors import DataError, one_line_errors


@dataclass
class TaskArguments:
    validation_fraction: float = field(
        default=0.1, metadata={"help": "prompts held out where there is no validation split", "min": 0, "below": 1}
    )
    on_bad_row: Literal["stop", "skip"] = field(
        default="stop", metadata={"help": "what a row that is no preference does: stop the run, or be skipped"}
    )
    max_bad_rows: int = field(default=10, metadata={"help": "rows that may be skipped", "min": 1})
    judged_questions: int = field(
        default=200, metadata={"help": "built-in questions that are answered at every evaluation", "min": 1}
    )


def main(model_args, data_args, adaptation_args, task_args, training_args):
    from transformers import AutoModelForCausalLM, set_seed

    from hftoolkit.data.labelled import fingerprint
    from hftoolkit.data.preferences import describe_preferences, load_preferences, preference_texts
    from hftoolkit.data.preferences_pairs import describe_pairs, tokenize_pairs
    from hftoolkit.data.preferences_tokens import length_limit
    from hftoolkit.evaluation.instructions import AnswerJudge
    from hftoolkit.loading import grow_embeddings, load_model, load_tokenizer
    from hftoolkit.run import run_training
    from hftoolkit.training.adaptation import adapt, layer_decay_optimizer
    from hftoolkit.training.instruction_settings import require_decoder
    from hftoolkit.training.preference_tuning import preference_baselines, preference_trainer

    # 1. Tokenizer; its chat template, where it has one, writes the prompts of conversations.
    require_decoder(model_args)
    if adaptation_args.adaptation == "frozen":
        raise DataError("adaptation: frozen trains a new head only, and here is none: take full or lora")
    options = {name: getattr(task_args, name) for name in ("on_bad_row", "max_bad_rows", "validation_fraction")}
    tokenizer = load_tokenizer(model_args, preference_texts(data_args, **options))
    if tokenizer.eos_token is None:
        raise DataError("the tokenizer has no eos_token, by which a model says that its answer is over")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

    # 2. Data.
    preferences, skipped = load_preferences(data_args, tokenizer=tokenizer, **options)
    validation = preferences.get("validation")
    if validation is None and training_args.eval_strategy != "no":
        raise DataError("there are no validation data: give --validation_fraction above 0, or --eval_strategy no")

    # 3. Model.
    set_seed(training_args.seed)
    sizes = {"max_position_embeddings": training_args.max_length} if training_args.max_length else {}
    model = load_model(AutoModelForCausalLM, model_args, tokenizer, **sizes)
    grow_embeddings(model, tokenizer)
    longest = length_limit(tokenizer, model, training_args.max_length)
    workers = data_args.preprocessing_num_workers
    tokens = {name: tokenize_pairs(part, tokenizer, longest, workers) for name, part in preferences.items()}
    model = adapt(model, adaptation_args)

    # 4. Train, evaluate, save.
    judge = None
    if data_args.dataset.split(":")[0] == "builtin":
        prompts = {row["prompt"]: {"prompt": row["prompt"], "completion": row["completions"][0]} for row in validation}
        judge = AnswerJudge(list(prompts.values()), tokenizer, limit=task_args.judged_questions)
    trainer = preference_trainer(
        judge=judge,
        model=model,
        args=training_args,
        train_dataset=tokens["train"],
        eval_dataset=tokens.get("validation"),
        processing_class=tokenizer,
        optimizers=(layer_decay_optimizer(model, training_args, adaptation_args.layer_decay), None),
    )
    summary = {}
    for name, part in preferences.items():
        counts = describe_preferences(part)
        summary[name] = counts | describe_pairs(tokens[name], counts["pairs"])
    return run_training(
        trainer,
        card="dpo",
        arguments=(model_args, data_args, adaptation_args, task_args),
        data_summary={"name": data_args.dataset, "fingerprint": fingerprint(preferences["train"])} | skipped | summary,
        extra_metrics=preference_baselines,
    )


def parse(argv=None):
    classes = (ModelArguments, ExampleArguments, AdaptationArguments, TaskArguments, "trl.DPOConfig")
    return parse_arguments(*classes, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
