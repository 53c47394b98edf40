"""Group relative policy optimisation (GRPO): several answers to a prompt compete by their rewards, by TRL's GRPOTrainer.

    python recipes/grpo.py --config gpt/grpo_tiny --output_dir runs/grpo
    python recipes/grpo.py --config gpt/grpo_tiny --adaptation lora --beta 0.1 --num_generations 8

Paper: Shao et al. 2024, "DeepSeekMath", https://arxiv.org/abs/2402.03300, Equation 3; loss_type grpo is its loss.
Input: --dataset and --rewards as recipes/ppo.py takes them: prompts (text or conversations), and reward models with
tokenizers of their own, functions `file.py:name`, `judge` or `brief`. --reward_weights weighs several.
What TRL's trainer cannot do: sample without transformers' generate (vLLM is not used here), train an encoder-decoder, or
a class that reads left padding as text, such as transformers' GPT-2 (`hftoolkit convert` makes it ours).
"""

from dataclasses import dataclass, field
from typing import Literal

from hftoolkit.arguments import AdaptationArguments, ExampleArguments, ModelArguments, parse_arguments
from hftoolkit.errors import DataError, one_line_errors


@dataclass
class TaskArguments:
    rewards: list[str] = field(
        default_factory=list, metadata={"help": "reward models, file.py:function, or judge; one or more"}
    )
    reward_batch_size: int = field(default=32, metadata={"help": "texts a reward model reads at once", "min": 1})
    on_reward_error: Literal["stop", "skip"] = field(
        default="stop", metadata={"help": "a response without a finite reward: stop, or learn nothing from it"}
    )
    on_long_prompt: Literal["stop", "skip"] = field(
        default="stop", metadata={"help": "a prompt that leaves no room for a response: stop, or leave it out"}
    )
    validation_fraction: float = field(
        default=0.05, metadata={"help": "prompts held out where there is no validation split", "min": 0, "below": 1}
    )
    max_eval_prompts: int = field(default=256, metadata={"help": "held-out prompts that are answered", "min": 1})
    on_bad_row: Literal["stop", "skip"] = field(
        default="stop", metadata={"help": "what a row without a prompt does: stop the run, or be left out and counted"}
    )
    max_bad_rows: int = field(default=10, metadata={"help": "rows that may be left out", "min": 1})


def main(model_args, data_args, adaptation_args, task_args, training_args):
    from transformers import AutoModelForCausalLM, set_seed

    from hftoolkit.data.instructions import texts_of
    from hftoolkit.data.labelled import fingerprint
    from hftoolkit.data.prompt_sources import load_prompts
    from hftoolkit.evaluation.instructions import AnswerJudge
    from hftoolkit.loading import grow_embeddings, load_model, load_tokenizer
    from hftoolkit.rl.reward_sources import load_reward
    from hftoolkit.rl.trl_rewards import in_trls_form
    from hftoolkit.run import run_training
    from hftoolkit.training.adaptation import adapt, layer_decay_optimizer
    from hftoolkit.training.group_policy import before_training, fitting_prompts, group_policy_trainer, true_answers
    from hftoolkit.training.instruction_settings import require_decoder

    require_decoder(model_args)
    if not task_args.rewards:
        raise DataError("name what is to be reached with --rewards: a reward model, file.py:function, or judge")
    if adaptation_args.adaptation == "frozen":
        raise DataError("adaptation: frozen trains a new head only, and here is none: take full or lora")

    # 1. Prompts, and the rewards of what is answered to them.
    summary, chosen = {}, ("validation_fraction", "on_bad_row", "max_bad_rows")
    splits = load_prompts(data_args, **{name: getattr(task_args, name) for name in chosen}, skipped=summary)
    if "validation" not in splits and training_args.eval_strategy != "no":
        raise DataError("there are no validation data: give --validation_fraction above 0, or --eval_strategy no")
    rewards = [load_reward(name, task_args.reward_batch_size) for name in task_args.rewards]

    # 2. Tokenizer and policy.
    texts = ({"prompt": row["prompt"], "completion": ""} for row in splits["train"])
    tokenizer = load_tokenizer(model_args, texts_of(texts))
    if tokenizer.eos_token is None:
        raise DataError("the tokenizer has no eos_token, by which a model says that its answer is over")
    set_seed(training_args.seed)
    policy = load_model(AutoModelForCausalLM, model_args, tokenizer)
    grow_embeddings(policy, tokenizer)
    context = getattr(policy.config, "max_position_embeddings", None)
    limit = context and context - training_args.max_completion_length
    summary |= {"name": data_args.dataset, "fingerprint": fingerprint(splits["train"])}
    for name, rows in splits.items():
        rows = rows if name == "train" else rows.take(min(task_args.max_eval_prompts, len(rows)))
        splits[name], tokens = fitting_prompts(rows, tokenizer, limit, task_args.on_long_prompt, name)
        summary[name] = {"prompts": len(splits[name]), "tokens": tokens}

    # 3. Train, evaluate, save.
    policy, held_out = adapt(policy, adaptation_args), splits.get("validation")
    asks = data_args.dataset == "builtin"
    trainer = group_policy_trainer(
        judge=AnswerJudge(true_answers(held_out), tokenizer, limit=len(held_out)) if asks else None,
        model=policy,
        reward_funcs=in_trls_form(rewards, task_args.on_reward_error, training_args.device),
        args=training_args,
        train_dataset=splits["train"],
        eval_dataset=held_out,
        processing_class=tokenizer,
        optimizers=(layer_decay_optimizer(policy, training_args, adaptation_args.layer_decay), None),
    )
    arguments = model_args, data_args, adaptation_args, task_args
    return run_training(trainer, card="grpo", arguments=arguments, data_summary=summary, extra_metrics=before_training)


def parse(argv=None):
    classes = (ModelArguments, ExampleArguments, AdaptationArguments, TaskArguments, "trl.GRPOConfig")
    return parse_arguments(*classes, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
