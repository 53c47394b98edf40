"""PPO: a language model learns what a reward asks for, near to where it was.

    python recipes/ppo.py --config gpt/ppo_tiny --output_dir runs/ppo
    python recipes/ppo.py --config gpt/ppo --model_name_or_path runs/gpt --rewards runs/reward --dataset DATA
    accelerate launch --config_file recipes/accelerate/ddp.yaml recipes/ppo.py --config gpt/ppo_tiny

Papers: Ziegler et al. 2019, https://arxiv.org/abs/1909.08593; Ouyang et al. 2022, "InstructGPT",
https://arxiv.org/abs/2203.02155, Section 3.5 and Appendix C.4.
Input: --dataset builtin, a Hub id, or files with prompts (text or conversations); those of recipes/sft.py serve as well.
--rewards: reward models (recipes/reward.py, or any sequence classifier with one label, with tokenizers of their own),
functions `file.py:name` in TRL's convention, and `judge`, which knows the truth about the built-in prompts (`brief`: short answers).
Columns of the report: objective/ of a rollout, loss/ and policy/ of its updates, rewards/ of each reward. The screen
shows some; trainer_state.json in the checkpoints has all.
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
    value: str = field(
        default="shared",
        metadata={"help": "value function: shared (a head on the policy), reward (begins as the first reward model), or a "
                          "model with the policy's tokenizer"},
    )  # fmt: skip
    validation_fraction: float = field(
        default=0.05, metadata={"help": "prompts held out where there is no validation split", "min": 0, "below": 1}
    )
    max_eval_prompts: int = field(default=256, metadata={"help": "held-out prompts that are answered", "min": 1})
    on_bad_row: Literal["stop", "skip"] = field(
        default="stop", metadata={"help": "what a row without a prompt does: stop the run, or be left out and counted"}
    )
    max_bad_rows: int = field(default=10, metadata={"help": "rows that may be left out", "min": 1})
    ptx_dataset: str | None = field(
        default=None, metadata={"help": "documents for ptx_coef: builtin, files or a Hub id", "source": "dataset"}
    )
    ptx_max_length: int = field(default=128, metadata={"help": "tokens of a row of them", "min": 2})


def main(model_args, data_args, adaptation_args, task_args, training_args):
    from transformers import AutoModelForCausalLM, set_seed

    from hftoolkit.data.instructions import texts_of
    from hftoolkit.data.prompt_sources import load_prompts
    from hftoolkit.loading import grow_embeddings, load_model, load_tokenizer
    from hftoolkit.rl.ppo_results import SHOWN, describe_prompts, evaluate_policy, language_model_rows, value_model_for
    from hftoolkit.rl.ppo_trainer import PPOTrainer
    from hftoolkit.rl.ptx import require_ptx
    from hftoolkit.rl.reward_sources import load_reward
    from hftoolkit.run import run_training
    from hftoolkit.training.adaptation import adapt

    if not task_args.rewards:
        raise DataError("name what PPO is to reach with --rewards: a reward model, file.py:function, or judge")
    if adaptation_args.adaptation == "frozen":
        raise DataError("adaptation: frozen trains a new head only, and here is none: take full or lora")
    require_ptx(training_args.ptx_coef, task_args.ptx_dataset)

    # 1. Prompts, and the rewards of what is answered to them.
    skipped, chosen = {}, ("validation_fraction", "on_bad_row", "max_bad_rows")
    splits = load_prompts(data_args, **{name: getattr(task_args, name) for name in chosen}, skipped=skipped)
    held_out = splits.get("validation")
    held_out = held_out and held_out.take(min(task_args.max_eval_prompts, len(held_out)))
    rewards = [load_reward(name, task_args.reward_batch_size) for name in task_args.rewards]

    # 2. Tokenizer and policy; the value function is a head of the policy, or a model beside it.
    tokenizer = load_tokenizer(
        model_args, texts_of({"prompt": row["prompt"], "completion": ""} for row in splits["train"])
    )
    set_seed(training_args.seed)
    policy = load_model(AutoModelForCausalLM, model_args, tokenizer)
    grow_embeddings(policy, tokenizer)
    value_model = value_model_for(task_args.value, rewards, policy)

    # 3. Train, evaluate, save.
    ptx = (
        language_model_rows(task_args.ptx_dataset, tokenizer, task_args.ptx_max_length)
        if task_args.ptx_dataset
        else None
    )
    trainer = PPOTrainer(
        adapt(policy, adaptation_args),
        training_args,
        rewards,
        splits["train"],
        tokenizer,
        value_model=value_model,
        eval_dataset=held_out,
        ptx_dataset=ptx,
        layer_decay=adaptation_args.layer_decay,
        num_workers=data_args.preprocessing_num_workers,
    )
    return run_training(
        trainer,
        card="ppo",
        arguments=(model_args, data_args, adaptation_args, task_args),
        data_summary=describe_prompts(data_args.dataset, trainer) | skipped,
        extra_metrics=evaluate_policy,
        shown_numbers=SHOWN,
    )


def parse(argv=None):
    classes = (ModelArguments, ExampleArguments, AdaptationArguments, TaskArguments, "hftoolkit.rl.config.PPOConfig")
    return parse_arguments(*classes, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
