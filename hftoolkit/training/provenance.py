"""Where numbers come from: versions, hardware, commit, and the arguments that decide a result."""

import dataclasses
import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch
from transformers import TrainingArguments

import hftoolkit
from hftoolkit.arguments.checks import inert_keys
from hftoolkit.arguments.output_folder import differences

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "safetensors", "numpy", "peft", "trl")

# Options of files, which the built-in data do not have.
OF_FILES = {"text_column", "document_separator", "on_bad_row", "max_bad_rows", "max_document_characters"}
# The fields of TrainingArguments that a reader needs to repeat a result; run.json holds all of them.
DECISIVE = (
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "max_grad_norm",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_steps",
    "num_train_epochs",
    "label_smoothing_factor",
    "neftune_noise_alpha",
    "bf16",
    "fp16",
    "seed",
    "data_seed",
)


@functools.cache
def versions():
    """Versions of Python, of hftoolkit and of the packages a result depends on."""
    found = {"python": platform.python_version(), "hftoolkit": hftoolkit.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware(device):
    """Kind of machine, processor, cores, memory, and the device that trains; no name of the host."""
    found = {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()}
    found["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        found["processor"] = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        found["processor"] = platform.processor()
    found["device"] = str(device)
    if device.type == "cuda":
        found["device_name"] = torch.cuda.get_device_name(device)
        found["device_memory_gb"] = round(torch.cuda.get_device_properties(device).total_memory / 1e9, 1)
    return found


def git_commit():
    """The commit of hftoolkit's own checkout, with `+changes` where it has uncommitted ones; None when installed."""
    root = Path(hftoolkit.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        ask = ["git", "--no-optional-locks", "-C", str(root)]
        commit = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        changed = subprocess.run(
            [*ask, "status", "--porcelain", "--untracked-files=no"], capture_output=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + "+changes" * bool(changed.stdout)


def threads():
    """How many threads torch computes with; another number gives other roundings."""
    return torch.get_num_threads()


def command():
    """The command of this process, as a list, beginning with the script."""
    return list(sys.argv)


def all_arguments(training_args, others=()):
    """Every argument by the name of its dataclass; secrets are left out when it is written."""
    found = {type(training_args).__name__: training_args.to_dict()}
    for arguments in others:
        found[type(arguments).__name__] = dataclasses.asdict(arguments)
    return found


def changed_arguments(before, args, others=()):
    """[(key, value before, value now)] of what a run was given and is given now, where that may change its result.

    Empty where either is unknown: only parse_arguments says what was given. The fields of `model_config` are left to
    it, because it knows the defaults of each architecture; the weights of a checkpoint are compared in any case.
    """
    now = vars(args).get("given_arguments")
    if before is None or now is None:
        return []
    defaults = {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for arguments in (args, *others)
        for field in dataclasses.fields(arguments)
    }
    free = inert_keys(args.to_dict()) | {"model_config", *vars(args).get("allowed_changes", ())}
    return differences(before, now, defaults, free)


def _idle(chosen):
    """Options that decide nothing beside the others: those of files for built-in data, and the other way round."""
    if str(chosen.get("dataset")).startswith("builtin"):
        return OF_FILES
    idle = {name for name in chosen if name.startswith("builtin_")}
    return idle | ({"on_bad_row", "max_bad_rows"} if chosen.get("on_bad_row") == "stop" else set())


def _added_by_subclass(training_args):
    """Names of the fields that a subclass of TrainingArguments adds and that decide something."""
    common = {field.name for field in dataclasses.fields(TrainingArguments)}
    is_ours = type(training_args).__module__.startswith("hftoolkit.")
    for field in dataclasses.fields(training_args):
        if field.name not in common and (is_ours or getattr(training_args, field.name) != field.default):
            yield field.name


def hyperparameters(training_args, others=()):
    """The arguments that decide a result, flat; None, empty, False and idle ones are left out.

    Of TrainingArguments these are the DECISIVE ones, of what our PPOConfig adds, all, and of what a subclass elsewhere
    adds (TRL's have up to a hundred), those that are not at their default.
    """
    stock = training_args.to_dict()
    length = "num_train_epochs" if stock["max_steps"] > 0 else "max_steps"  # the one that decides nothing
    names = (*DECISIVE, *_added_by_subclass(training_args))
    chosen = {name: stock[name] for name in names if name in stock and name != length}
    for arguments in others:
        chosen |= dataclasses.asdict(arguments)
    idle = _idle(chosen)
    rows = stock["per_device_train_batch_size"] * stock["gradient_accumulation_steps"] * training_args.world_size
    return {"total_batch_size": rows} | {
        name: value for name, value in chosen.items() if name not in idle and value not in (None, False, {}, "")
    }
