"""Rewards by name, as recipes take them: a reward model, a function in a Python file, or one that is built in."""

import importlib.util
import itertools
import sys
import traceback
from pathlib import Path

from hftoolkit.errors import CheckpointError, DataError


def judge(prompts, completions, **columns):
    """The true preference of the microworld: 1 true, 0 false but well formed, -1 anything else."""
    from hftoolkit.data.microworld import judge_answer

    return [judge_answer(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]


def brief(prompts, completions, **columns):
    """2 to the power of minus characters / 10: something that any policy can learn at once, to try a setting with."""
    return [2.0 ** (-len(text if isinstance(text, str) else text[-1]["content"]) / 10) for text in completions]


BUILTIN = {"judge": judge, "brief": brief}


def load_reward(name, batch_size=16, max_length=None):
    """A reward function from its name.

    Args:
        name: `judge` or `brief`; `file.py:function`; or the folder or Hub id of a sequence classifier with one label.
        batch_size, max_length: of a reward model.

    Raises:
        DataError: no such file or function, or a file that is no program or raises; naming its line.
        CheckpointError: the model has no scalar head; see RewardModel.
    """
    if name in BUILTIN:
        return BUILTIN[name]
    path, colon, function = name.rpartition(":")
    if colon and path.endswith(".py"):
        return load_function(Path(path), function)
    return load_reward_model(name, batch_size, max_length)


def load_function(path, name):
    """A function from a Python file, which is run anew at each call."""
    if not path.is_file():
        raise DataError(f"the reward {path}:{name}: there is no file {path}")
    module = _run_file(path)
    found = getattr(module, name, None)
    if not callable(found):
        defined = ", ".join(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise DataError(f"{path} has no function {name!r}; it has {defined or 'none'}")
    return found


def _run_file(path):
    """The module of a Python file, known to the interpreter (dataclasses ask it) by a name that no other has."""
    names = (f"reward_file_{path.stem}_{number}" for number in itertools.count())
    name = next(name for name in names if name not in sys.modules)
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        own = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == spec.origin]
        place, what = f"{path}:{own[-1]}" if own else str(path), str(error)
        if isinstance(error, SyntaxError):  # in this file, or in one that it imports
            place, what = f"{path if error.filename == spec.origin else error.filename}:{error.lineno}", error.msg
        raise DataError(f"{place}: the reward file cannot be run, {type(error).__name__}: {what}") from error
    return module


def load_reward_model(source, batch_size=16, max_length=None):
    """A reward model with its own tokenizer, from a folder or the Hub; named after the last part of its place.

    Conversations reach it as in its training: by its own chat template, or in HH-RLHF's form where it has none.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    import hftoolkit.models  # noqa: F401
    from hftoolkit.data.preferences_rows import split_dialogue
    from hftoolkit.rl.reward_model import RewardModel

    try:
        model = AutoModelForSequenceClassification.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{source} is no reward model that can be loaded: {str(error).splitlines()[0]}"
        ) from error
    reward = RewardModel(model, tokenizer, batch_size=batch_size, max_length=max_length)

    def score(prompts, completions, **columns):
        pairs = [
            (prompt, completion)
            if isinstance(prompt, str)
            else split_dialogue(prompt, completion, f"prompt {number}", tokenizer)
            for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]
        return reward([prompt for prompt, _ in pairs], [completion for _, completion in pairs])

    score.__name__, score.model = Path(source).name, model
    return score
