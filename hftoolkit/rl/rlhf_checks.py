"""What could stop a whole RLHF run after hours, asked before: of the arguments, and of the SFT model once it is there."""

import contextlib

from datasets import DatasetDict
from transformers import AutoConfig, AutoTokenizer

import hftoolkit.models  # noqa: F401
from hftoolkit.data.preferences import load_preferences
from hftoolkit.data.prompt_sources import load_prompts
from hftoolkit.errors import CheckpointError, DataError, UserError
from hftoolkit.rl.checks import held_out_prompts, prompt_options, stop_tokens, training_prompts
from hftoolkit.rl.ptx import require_ptx
from hftoolkit.rl.reward_sources import load_reward

VALUES = ("shared", "reward")  # value functions that no model is loaded for


def check_before_training(settings, truth=None, start=None):
    """Refuse what no stage has to be trained for to be seen.

    Args:
        settings: {stage: what its recipe's parse gives}.
        truth: name of the true reward, or None.
        start: the model that the run begins with, or None for a new one.

    Returns:
        The prompts of the stage ppo: its training data, and as "validation" those that the report asks.

    Raises:
        UserError: naming the stage.
    """
    for name in ("sft", "ppo"):
        if settings[name][2].adaptation == "frozen":
            raise DataError(f"--{name}.adaptation frozen trains a new head only, and here is none: take full or lora")
    with in_stage("reward"):
        _, data_args, _, task_args, _ = settings["reward"]
        options = ("on_bad_row", "max_bad_rows", "validation_fraction")
        load_preferences(data_args, **{option: getattr(task_args, option) for option in options})
    with in_stage("ppo"):
        _, data_args, _, task_args, ppo_args = settings["ppo"]
        require_ptx(ppo_args.ptx_coef, task_args.ptx_dataset)
        if task_args.value not in VALUES:
            _require_model(task_args.value)
        if truth is not None:
            load_reward(truth, task_args.reward_batch_size)
        config = None
        with contextlib.suppress(OSError, ValueError):  # whether the start can be loaded, the stage sft says
            config = None if start is None else AutoConfig.from_pretrained(start)
        if config is not None:
            prompt_options(ppo_args, config)
        return _prompts(data_args, task_args, ppo_args)


def check_with_policy(folder, settings, prompts):
    """Refuse, before reward model and policy are trained, what does not fit the tokenizer and context of the SFT model.

    Args:
        settings: of the stage ppo.
        prompts: of check_before_training.

    Raises:
        UserError: naming the stage.
    """
    _, data_args, _, _, ppo_args = settings
    tokenizer, config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    with in_stage("ppo"):
        stop_tokens(ppo_args, tokenizer, config)
        options = prompt_options(ppo_args, config, num_workers=data_args.preprocessing_num_workers)
        training_prompts(prompts["train"], tokenizer, options, ppo_args.rollout_batch_size)
        held_out_prompts(prompts["validation"], tokenizer, options)


@contextlib.contextmanager
def in_stage(name):
    """While open, errors that a user can mend name the stage."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"stage {name} (its keys are given as --{name}.KEY): {error}") from error


def _require_model(name):
    try:
        AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"value: {name} is no model that can be loaded, nor {' or '.join(VALUES)}: {str(error).splitlines()[0]}"
        ) from error


def _prompts(data_args, task_args, ppo_args):
    chosen = ("validation_fraction", "on_bad_row", "max_bad_rows")
    found = load_prompts(data_args, **{name: getattr(task_args, name) for name in chosen})
    if "validation" not in found:
        raise DataError("no prompts are held out, and the report asks them: give --ppo.validation_fraction above 0")
    number, needed = len(found["train"]), ppo_args.rollout_batch_size
    if number < needed:
        raise DataError(
            f"{number} training prompts, and a rollout takes {needed}: give more prompts, or set rollout_batch_size to at "
            f"most {number}"
        )
    held_out = found["validation"].take(min(task_args.max_eval_prompts, len(found["validation"])))
    return DatasetDict(train=found["train"], validation=held_out)
