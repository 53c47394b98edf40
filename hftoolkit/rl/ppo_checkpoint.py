"""Checkpoints of PPO: the policy as any program loads it, the value function beside it, and the rollout in progress.

config.json, model.safetensors, tokenizer   the policy (PEFT: its adapter)
value_model/                                the value model, or value_head.safetensors of a shared trunk
ppo/state.json, ppo/experience.safetensors  KL coefficient, score statistics; responses with updates still to come
"""

import logging
import os
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hftoolkit.errors import CheckpointError
from hftoolkit.rl.experience import Experience
from hftoolkit.training.disk import read_json, write_json

logger = logging.getLogger(__name__)
VALUE_FOLDER, VALUE_HEAD = "value_model", "value_head.safetensors"
PROGRESS_FOLDER, STATE_FILE, EXPERIENCE_FILE = "ppo", "state.json", "experience.safetensors"


def save_models(trainer, save, output_dir, state_dict=None):
    """Save the policy with Trainer's own `save(folder, state_dict)`, and the value function.

    Args:
        state_dict: gathered weights of the pair, where they are sharded.
    """
    pair = trainer.model
    gathered = {"policy": None, "value_model": None, "value_head": None}
    if state_dict is not None:
        for part in gathered:
            start = f"{part}."
            gathered[part] = {k.removeprefix(start): v for k, v in state_dict.items() if k.startswith(start)}
        for part in ("policy", "value_model"):  # gathering has parted the tied weights; a file holds them once
            for name in getattr(getattr(pair, part), "all_tied_weights_keys", None) or ():
                gathered[part].pop(name, None)
    trainer.model = pair.policy
    try:
        save(output_dir, gathered["policy"])
    finally:
        trainer.model = pair
    if not trainer.args.should_save:
        return
    folder = Path(output_dir) / VALUE_FOLDER
    if pair.value_model is not None:
        pair.value_model.save_pretrained(folder, state_dict=gathered["value_model"])
    else:
        os.makedirs(folder, exist_ok=True)
        state = gathered["value_head"] or pair.value_head.state_dict()
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / VALUE_HEAD)


def save_progress(trainer, trial=None):
    """Write what the next update needs beside models and optimizer; the main process does."""
    if not trainer.args.should_save:
        return
    run = Path(trainer._get_output_dir(trial=trial))
    folder = run / f"checkpoint-{trainer.state.global_step}" / PROGRESS_FOLDER
    os.makedirs(folder, exist_ok=True)
    state = {"kl_coefficient": trainer.kl_control.coefficient, "report": trainer.rollout_report}
    state |= {"updates_per_rollout": trainer.updates_per_rollout, "unreported": trainer.unreported}
    if trainer.score_norm is not None:
        state["score_norm"] = asdict(trainer.score_norm)
    write_json(folder / STATE_FILE, state)
    if trainer.experience is not None and trainer.state.global_step % trainer.updates_per_rollout:
        save_file(trainer.experience.tensors(), folder / EXPERIENCE_FILE)


def load_policy(trainer, load, checkpoint, wrapped=None):
    """Put back the policy with Trainer's own `load(folder)`, which reads into trainer.model.

    Args:
        wrapped: the pair under FSDP, whose weights are loaded at once, the value function's with them.

    Raises:
        CheckpointError: the checkpoint has a value function of another kind.
    """
    pair = trainer.model
    _require_value_function(pair, Path(checkpoint))
    if trainer.is_fsdp_enabled:
        load(checkpoint, wrapped)
        return
    trainer.model = pair.policy
    try:
        load(checkpoint)
    finally:
        trainer.model = pair


def load_value_and_progress(trainer, checkpoint):
    """Put back what save_models and save_progress wrote.

    Raises:
        CheckpointError: its rollouts gave another number of updates, so that its step is in another rollout here; or its
            value function is another.
    """
    pair, folder = trainer.model, Path(checkpoint) / VALUE_FOLDER
    if trainer.is_fsdp_enabled:
        pass  # load_policy has put back both
    elif pair.value_model is None:
        _load_value(folder, lambda: pair.value_head.load_state_dict(load_file(folder / VALUE_HEAD)))
    else:
        _load_value(folder, lambda: _load_model(pair.value_model, folder))
    folder = Path(checkpoint) / PROGRESS_FOLDER
    state = read_json(folder / STATE_FILE)
    if state["updates_per_rollout"] != trainer.updates_per_rollout:
        raise CheckpointError(
            f"{checkpoint} is of a run with {state['updates_per_rollout']} updates per rollout, and here are "
            f"{trainer.updates_per_rollout}: keep rollout_batch_size, num_ppo_epochs and the minibatch "
            "(per_device_train_batch_size x gradient_accumulation_steps x processes), with any number of processes"
        )
    trainer.kl_control.coefficient, trainer.rollout_report = state["kl_coefficient"], state["report"]
    trainer.unreported = state.get("unreported", [])
    _load_score_norm(trainer, checkpoint, state.get("score_norm"))
    trainer.experience = None
    if (folder / EXPERIENCE_FILE).exists():
        tensors = load_file(folder / EXPERIENCE_FILE)  # safetensors does not know the device "cpu:0"
        tensors = {name: tensor.to(trainer.args.device) for name, tensor in tensors.items()}
        trainer.experience = Experience(**tensors)


def _require_value_function(pair, checkpoint):
    """Refuse a checkpoint whose value function is a head where here is a model, or the other way round."""
    folder = checkpoint / VALUE_FOLDER
    if folder.is_dir() and (folder / VALUE_HEAD).exists() != (pair.value_model is None):
        kinds = ("a model of its own", "a head on the policy (shared)")
        there, here = kinds[(folder / VALUE_HEAD).exists()], kinds[pair.value_model is None]
        raise CheckpointError(
            f"the value function of {checkpoint} is {there}, and here it is {here}: keep `value` and the value model as they "
            "were, or begin again in another output_dir"
        )


def _load_value(folder, load):
    """Call `load`; what does not fit is a CheckpointError."""
    try:
        load()
    except (OSError, RuntimeError, SafetensorError) as error:
        what = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the value function in {folder} does not fit the one here ({what}): keep `value` and the "
            "value model as they were, or begin again in another output_dir"
        ) from error


def _load_score_norm(trainer, checkpoint, saved):
    """Put back the statistics of the scores; where score_norm was switched on or off, say what becomes of them."""
    if trainer.score_norm is not None and saved is not None:
        for name, value in saved.items():
            setattr(trainer.score_norm, name, value)
    elif trainer.score_norm is not None:
        logger.warning(
            "%s has no statistics of the scores: score_norm begins with those of the next rollout", checkpoint
        )
    elif saved is not None:
        logger.warning("the statistics of the scores in %s are dropped: score_norm is off", checkpoint)


def _load_model(model, folder):
    """Weights of a folder that save_pretrained wrote, in one file or in shards, into a model, with its config.reward_bias.

    Raises:
        RuntimeError: names or shapes differ.
    """
    state = {}
    for path in sorted(folder.glob("*.safetensors")):
        state |= load_file(path)
    if hasattr(model, "peft_config"):
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(model, state)
        return
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = set(missing) - set(getattr(model, "all_tied_weights_keys", None) or ())
    if wrong := sorted({*missing, *unexpected}):
        raise RuntimeError(f"{len(missing)} weights are missing and {len(unexpected)} unknown, such as {wrong[0]}")
    bias = (read_json(folder / "config.json") or {}).get("reward_bias", 0.0)
    if bias != getattr(model.config, "reward_bias", 0.0):
        model.config.reward_bias = bias
