"""Train a reward model: from preferences between answers, pairs or rankings, to a number for each answer.

    python recipes/reward.py --config gpt/reward_tiny --output_dir runs/reward
    python recipes/reward.py --config bert/reward_cpu --model_name_or_path google-bert/bert-base-uncased --dataset DATA
    accelerate launch recipes/reward.py --config gpt/reward --model_name_or_path openai-community/gpt2

Papers: Ouyang et al. 2022, "InstructGPT", https://arxiv.org/abs/2203.02155, Sections 3.4, 3.5 and C.2; Bai et al. 2022,
https://arxiv.org/abs/2204.05862 (HH-RLHF). Input: --dataset builtin or builtin:rankings, files as HH-RLHF, TRL or
LLaMA-Factory have them, rankings {prompt, completions, ranks}, or a Hub id. Any sequence classifier or base model.
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments import AdaptationArguments, ExampleArguments, ModelArguments, parse_arguments
from hftoolkit.errors import one_line_errors


@dataclass
class TaskArguments:
    max_length: int = field(
        default=512, metadata={"help": "tokens of a prompt with its answer; the prompt loses its beginning", "min": 8}
    )
    centre_coefficient: float = field(
        default=0.0, metadata={"help": "penalty on a pair's mean reward (TRL: center_rewards_coefficient)", "min": 0}
    )
    demonstrations: str = field(
        default="chosen", metadata={"help": "get the mean reward 0: chosen, none, or a data set with completions"}
    )
    num_demonstrations: int = field(default=512, metadata={"help": "how many are read", "min": 1})
    optimizer: Literal["trainer", "muon"] = field(
        default="trainer", metadata={"help": "muon updates hidden matrices; trainer is TrainingArguments' optim"}
    )
    adamw_learning_rate: float | None = field(default=None, metadata={"help": "of the rest, with muon", "above": 0})
    dropout: bool = field(default=False, metadata={"help": "leave the model's dropout on"})
    validation_fraction: float = field(
        default=0.1, metadata={"help": "prompts held out where there is no validation split", "min": 0, "below": 1}
    )
    on_bad_row: Literal["stop", "skip"] = field(
        default="stop", metadata={"help": "what a row that is no preference does: stop the run, or be skipped"}
    )
    max_bad_rows: int = field(default=10, metadata={"help": "rows that may be skipped", "min": 1})


def main(model_args, data_args, adaptation_args, task_args, training_args):
    from transformers import AutoModelForSequenceClassification, set_seed

    from hftoolkit.data.labelled import fingerprint
    from hftoolkit.data.preferences import describe_preferences, load_preferences, preference_texts
    from hftoolkit.data.preferences_batches import PreferenceCollator, describe_batches, tokenize_preferences
    from hftoolkit.data.preferences_tokens import length_limit
    from hftoolkit.evaluation.reward import pair_metrics
    from hftoolkit.loading import grow_embeddings, load_model, load_tokenizer
    from hftoolkit.rl.reward_head import is_reward_model, new_head, reads_shared_prompts, without_dropout
    from hftoolkit.rl.reward_results import evaluate_rewards, load_demonstrations
    from hftoolkit.rl.reward_trainer import RewardTrainer
    from hftoolkit.run import run_training
    from hftoolkit.training.adaptation import adapt, tuning_optimizer

    # 1. Tokenizer; its chat template, where it has one, writes the prompts of conversations.
    options = {name: getattr(task_args, name) for name in ("on_bad_row", "max_bad_rows", "validation_fraction")}
    tokenizer = load_tokenizer(model_args, preference_texts(data_args, **options))
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

    # 2. Data: every answer with its prompt is one row, however many answers a prompt has.
    preferences, skipped = load_preferences(data_args, tokenizer=tokenizer, **options)

    # 3. Model: a base model gets a new head; that of a classifier with one output stays.
    set_seed(training_args.seed)
    size = {"max_position_embeddings": task_args.max_length}
    model = load_model(AutoModelForSequenceClassification, model_args, tokenizer, num_labels=1, **size)
    source = model_args.model_name_or_path
    if source is None or not is_reward_model(source, model_args.revision):
        model = new_head(model)
    if not task_args.dropout:
        model = without_dropout(model)
    grow_embeddings(model, tokenizer)
    longest = length_limit(tokenizer, model, task_args.max_length)
    workers = data_args.preprocessing_num_workers
    tokens = {name: tokenize_preferences(part, tokenizer, longest, workers) for name, part in preferences.items()}
    model = adapt(model, adaptation_args)

    # 4. Train, set the mean of the rewards, evaluate, save.
    demonstrations = task_args.demonstrations, task_args.num_demonstrations
    optimizer = adaptation_args.layer_decay, task_args.optimizer, task_args.adamw_learning_rate
    trainer = RewardTrainer(
        model=model,
        args=training_args,
        data_collator=PreferenceCollator(model.config.pad_token_id, reads_shared_prompts(model)),
        train_dataset=tokens["train"],
        eval_dataset=tokens.get("validation"),
        processing_class=tokenizer,
        compute_metrics=lambda found: pair_metrics(found.predictions, found.label_ids),
        optimizers=(tuning_optimizer(model, training_args, *optimizer), None),
        centre_coefficient=task_args.centre_coefficient,
        demonstrations=load_demonstrations(*demonstrations, tokens["train"], tokenizer, longest),
    )
    summary = {name: describe_preferences(part) | describe_batches(tokens[name]) for name, part in preferences.items()}
    return run_training(
        trainer,
        card="reward",
        arguments=(model_args, data_args, adaptation_args, task_args),
        data_summary={"name": data_args.dataset, "fingerprint": fingerprint(preferences["train"])} | skipped | summary,
        extra_metrics=evaluate_rewards,
    )


def parse(argv=None):
    classes = (ModelArguments, ExampleArguments, AdaptationArguments, TaskArguments, "transformers.TrainingArguments")
    return parse_arguments(*classes, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
