"""The end of a whole RLHF run: its three models answer the same prompts, and the report is written."""

from copy import copy
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerState

import hftoolkit.models  # noqa: F401
from hftoolkit.arguments.output_folder import differences
from hftoolkit.data.prompts import checked_prompt_ids
from hftoolkit.errors import DataError
from hftoolkit.rl.checks import held_out_prompts, prompt_options
from hftoolkit.rl.reward_sources import load_reward
from hftoolkit.rl.rlhf_figure import draw_over_optimisation
from hftoolkit.rl.rlhf_report import LEARNED, TRUE, answer, compare, path_of, samples_of, write_report
from hftoolkit.training.checkpoints import list_checkpoints
from hftoolkit.training.disk import plain, read_json, write_json, write_whole
from hftoolkit.training.progress import say

REPORT, TABLES, PICTURE = "report.json", "report.md", "over_optimisation.png"
TOLD = ("eval_accuracy", "eval_margin", "eval_loss")  # of the reward model's own results
FREE = ("output_dir", "use_cpu")  # arguments that change no number


def earlier_report(folder, arguments):
    """The report that a run with these arguments has left, or None.

    Raises:
        DataError: the folder holds the report of a run with other arguments.
    """
    report = read_json(folder / REPORT)
    if report is None:
        return None
    defaults = {key: value for key, value in arguments.items() if not isinstance(value, dict)}  # of keys that are new
    if changed := differences(report["arguments"], plain(arguments), defaults, FREE):
        key, before, now = changed[0]
        raise DataError(
            f"{folder} holds a run with other arguments ({key} was {before!r} and is {now!r}): choose another output_dir"
        )
    return report


def make_report(folder, arguments, prompts, ppo_args, truth=None):
    """Let the start, the SFT model and the policy answer held-out prompts; write report, tables and picture.

    They answer the same ones, those that each of them can read.

    Args:
        arguments: of the whole run, for the record: a dataclass with model_name_or_path and use_cpu.
        prompts: the held-out prompts.
        ppo_args: PPOConfig of the last stage: how answers are sampled.
        truth: name of the true reward, or None.

    Returns:
        The content of report.json.
    """
    folder = Path(folder)
    device = ppo_args.device
    rewards = {LEARNED: load_reward(str(folder / "reward"))}
    rewards |= {} if truth is None else {TRUE: load_reward(truth)}
    for function in rewards.values():
        if isinstance(getattr(function, "model", None), torch.nn.Module):
            function.model.to(device)
    places = {"SFT": folder / "sft", "PPO": folder / "ppo"}
    if arguments.model_name_or_path is not None:
        places = {"start": arguments.model_name_or_path} | places
    state, reference, stages = _state(folder / "ppo"), _load_model(places["SFT"], device), {}
    template = AutoTokenizer.from_pretrained(places["SFT"]).chat_template
    tokenizers = {name: _load_tokenizer(place, template) for name, place in places.items()}
    configs = {name: AutoConfig.from_pretrained(place) for name, place in places.items()}
    prompts = readable_prompts(prompts, [(tokenizers[name], configs[name]) for name in places], ppo_args)
    for name, place in places.items():
        say(f"answers of {name} to {len(prompts)} prompts")
        model, tokenizer = _load_model(place, device), tokenizers[name]
        same = model.config.vocab_size == reference.config.vocab_size
        asked = held_out_prompts(prompts, tokenizer, prompt_options(ppo_args, model.config))
        settings = _known_stops(ppo_args, model.config)
        stages[name] = answer(model, tokenizer, asked, rewards, settings, reference if same else None, state)
    report = {
        "arguments": asdict(arguments),
        "stages": compare(stages),
        "reward_model": _told(folder / "reward"),
        "path": path_of(state.log_history, learned="reward"),
        "samples": samples_of(stages, prompts),
    }
    if report["path"]:
        draw_over_optimisation(report["path"], folder / PICTURE, title=folder.resolve().name)
    tables = write_report(report)
    write_whole(folder / TABLES, tables.encode())
    write_json(folder / REPORT, report)
    say(tables.split("\n## Samples")[0])
    say(f"done: {folder / TABLES}")
    return read_json(folder / REPORT)


def readable_prompts(prompts, readers, args):
    """The prompts that every model can read with a response behind them.

    Args:
        readers: (tokenizer, config) of each model.
        args: PPOConfig: response_length, max_prompt_length, on_long_prompt.

    Raises:
        DataError: there are none, or conversations that a tokenizer has no chat template for.
    """
    asked, kept = prompts["prompt"][:], range(len(prompts))
    for tokenizer, config in readers:
        longest = prompt_options(args, config)["max_prompt_length"]
        if args.on_long_prompt != "truncate":
            ids = {row: checked_prompt_ids(asked[row], tokenizer, f"held-out prompt {row}") for row in kept}
            kept = [row for row in kept if len(ids[row]) <= longest]
    if not kept:
        raise DataError(
            f"none of the {len(prompts)} held-out prompts leaves room for a response of {args.response_length} tokens in "
            "all models: give shorter prompts, or --ppo.on_long_prompt truncate"
        )
    return prompts.select(kept)


def _known_stops(args, config):
    """Settings without stop_token_ids that a model before SFT does not know, and thus never gives."""
    size = config.get_text_config(decoder=True).vocab_size
    known = copy(args)
    known.stop_token_ids = [token for token in args.stop_token_ids or () if token < size] or None
    return known


def _load_model(place, device):
    return AutoModelForCausalLM.from_pretrained(place).to(device)


def _load_tokenizer(place, template):
    """A tokenizer; one without a chat template takes that of the SFT model."""
    tokenizer = AutoTokenizer.from_pretrained(place)
    tokenizer.chat_template = tokenizer.chat_template or template
    return tokenizer


def _told(folder):
    """Of the reward model's own results, what a reader of the report asks for."""
    results = read_json(folder / "all_results.json") or {}
    return {name.removeprefix("eval_"): results[name] for name in TOLD if results.get(name) is not None}


def _state(folder):
    """The state of the newest checkpoint of a run; one that has seen nothing where there is none."""
    files = [folder / "trainer_state.json" for folder in list_checkpoints(folder)[-1:]]
    return TrainerState.load_from_json(files[0]) if files and read_json(files[0]) else TrainerState()
