"""Checks over several keys at once: contradictions, secrets, missing packages, and which changes a resumed run allows.

Everything here works on plain dictionaries of values and imports nothing heavy, so that it runs before torch is there.
"""

import importlib.util
import math
import os
import re

from hftoolkit.arguments.tables import INERT, REPORTER_PACKAGES

SECRET_KEY = re.compile(
    r"(^|_)(hub_token|hf_token|auth_token|access_token|push_to_hub_token|api_?key|password|passwd|secret)$|^token$"
)
SECRET_TEXT = re.compile(
    r"(?<![A-Za-z0-9])(hf_[A-Za-z0-9]{20,}|sk-([a-z]+-)?[A-Za-z0-9_]{20,}|gh[pousr]_[A-Za-z0-9]{20,})"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
FOLLOWS_EVALUATION = ("reduce_lr_on_plateau", "greedy")  # schedules that read the evaluation
VALIDATION_NAME = re.compile(r"val|dev|test", re.IGNORECASE)


def secret_problem(key, texts):
    """Return why a key or its texts may not be given, or None. The secret itself is never repeated."""
    if SECRET_KEY.search(key.rsplit(".", 1)[-1].lower()) and any(text not in ("", "null", "~") for text in texts):
        return f"'{redacted(key)}' must not be given: it would be saved with the run and published; {LOG_IN}"
    if any(SECRET_TEXT.search(text) for text in texts):
        return f"the value of '{redacted(key)}' looks like a secret, which would be saved and published; {LOG_IN}"
    return None


def redacted(text):
    """Replace whatever looks like a secret."""
    return SECRET_TEXT.sub("***", text)


def inert_keys(values):
    """Return the keys that may change between an interrupted run and its resumption."""
    inert = {key for keys in INERT.values() for key in keys}
    if values.get("load_best_model_at_end") or values.get("lr_scheduler_type") in FOLLOWS_EVALUATION:
        inert -= {key for key in inert if key.startswith("eval_")}
    return inert


def contradictions(values, given):
    """Yield (keys, message) for settings that cannot stand together.

    Args:
        values: every key with its value, given or default.
        given: the keys that the user wrote.
    """
    for check in (_model_source, _evaluation, _best_model, _steps, _data, _positions, _precision):
        yield from check(values, given)


def _model_source(values, given):
    if not {"architecture", "model_name_or_path"} <= values.keys():
        return
    both = ("architecture", "model_name_or_path")
    if values["architecture"] and values["model_name_or_path"]:
        yield both, "'architecture' (from scratch) and 'model_name_or_path' (from a checkpoint) exclude each other"
    elif not values["architecture"] and not values["model_name_or_path"]:
        yield both, "no model: give 'architecture' (from scratch) or 'model_name_or_path' (a checkpoint)"


def _evaluation(values, given):
    strategy = values.get("eval_strategy", "no")
    if "eval_steps" in given and "eval_strategy" not in given and strategy == "no" and values["eval_steps"]:
        yield ("eval_steps", "eval_strategy"), "'eval_steps' has no effect without 'eval_strategy: steps'"
    if strategy == "no":
        if values.get("lr_scheduler_type") in FOLLOWS_EVALUATION:
            name = values["lr_scheduler_type"]
            message = f"'lr_scheduler_type: {name}' follows the evaluation; give 'eval_strategy: steps'"
            yield ("lr_scheduler_type", "eval_strategy"), message
    elif values.get("validation_fraction") == 0 and _has_no_validation(values.get("dataset")):
        message = f"'eval_strategy: {strategy}' needs validation data: give 'validation_fraction' above 0"
        yield ("eval_strategy", "validation_fraction", "dataset"), message


def _has_no_validation(dataset):
    """True for a local file, or a folder in which no name speaks of validation; a Hub data set cannot be known."""
    path = os.path.expanduser(dataset or "")
    if os.path.isdir(path):
        return not any(VALIDATION_NAME.search(name) for name in os.listdir(path))
    return os.path.isfile(path)


def _best_model(values, given):
    if not values.get("load_best_model_at_end"):
        return
    evaluating, saving = values.get("eval_strategy", "no"), values.get("save_strategy")
    keys = ("load_best_model_at_end", "eval_strategy", "save_strategy")
    if evaluating == "no":
        yield keys, "'load_best_model_at_end' needs 'eval_strategy: steps' or 'epoch'"
    elif saving not in ("best", evaluating):
        message = (
            f"'load_best_model_at_end' needs equal strategies, but eval_strategy is {evaluating} and save_strategy"
        )
        yield keys, f"{message} is {saving}"
    elif evaluating == saving == "steps":
        every, save_every = values.get("eval_steps") or values.get("logging_steps"), values.get("save_steps")
        ratio = save_every / every
        if (every < 1) != (save_every < 1) or not math.isclose(ratio, round(ratio)) or ratio < 0.5:
            message = (
                f"'load_best_model_at_end' needs save_steps ({save_every:g}) as a multiple of eval_steps ({every:g})"
            )
            yield (*keys, "save_steps", "eval_steps", "logging_steps"), message


def _steps(values, given):
    steps, warmup = values.get("max_steps", -1), values.get("warmup_steps", 0)
    if steps > 0 and warmup > steps:
        message = f"'warmup_steps' ({warmup:g}) is more than 'max_steps' ({steps}): the learning rate never arrives"
        yield ("warmup_steps", "max_steps"), message
    if values.get("streaming") and "max_steps" in values and steps <= 0:
        yield ("streaming", "max_steps"), "'streaming' needs 'max_steps': the length of a stream is not known"


def _data(values, given):
    if values.get("dataloader_prefetch_factor") and not values.get("dataloader_num_workers"):
        message = "'dataloader_prefetch_factor' has no effect without 'dataloader_num_workers' of at least 1"
        yield ("dataloader_prefetch_factor", "dataloader_num_workers"), message


def _positions(values, given):
    length, positions = values.get("max_length"), values.get("model_config.max_position_embeddings")
    if isinstance(length, int) and isinstance(positions, int) and length > positions:
        message = f"'max_length' ({length}) is more than model_config.max_position_embeddings ({positions})"
        yield ("max_length", "model_config.max_position_embeddings"), message
    if values.get("architecture") == "t5":  # its heads have a size of their own
        return
    width, heads = values.get("model_config.hidden_size"), values.get("model_config.num_attention_heads")
    if isinstance(width, int) and isinstance(heads, int) and heads > 0 and width % heads:
        message = (
            f"model_config.hidden_size ({width}) must be a multiple of model_config.num_attention_heads ({heads})"
        )
        yield ("model_config.hidden_size", "model_config.num_attention_heads"), message


def _precision(values, given):
    for one, other in (("fp16", "bf16"), ("fp16_full_eval", "bf16_full_eval")):
        if values.get(one) is True and values.get(other) is True:
            yield (one, other), f"'{one}' and '{other}' exclude each other"


def missing_packages(values):
    """Yield (key, message) for every tracker of `report_to` that is not installed."""
    reporters = values.get("report_to") or ()
    for name in [reporters] if isinstance(reporters, str) else reporters:
        package, remedy = REPORTER_PACKAGES.get(name, (None, ""))
        if package and importlib.util.find_spec(package) is None:
            yield "report_to", f"'report_to: {name}' needs the package {package}; install it: {remedy}"
