"""From the settings of a whole RLHF run to the command line of each of its stages."""

import sys

from hftoolkit.arguments.report import rank
from hftoolkit.errors import DataError

STAGES = ("sft", "reward", "ppo")
SET_BY_THE_RUN = ("output_dir", "model_name_or_path", "rewards", "reward_weights")
TRUTH = "judge"  # who knows what is true in the built-in world


def stage_words(name, settings, folder, *, model, dataset=None, truth=None, checks=False):
    """The words behind a stage's recipe on a command line.

    Args:
        name: one of STAGES.
        settings: what the user gave for this stage: `config`, and keys of the recipe.
        folder: of the whole run; a stage works in the folder of its name.
        model: what the whole run starts from; None where the config of the stage sft builds it.
        dataset: prompts of the stage ppo, where its settings name none.
        truth: a reward that PPO reports and does not learn, or None.
        checks: put the folder itself in place of models that earlier stages will make, to check the other arguments
            before anything runs.

    Example:
        stage_words("reward", {"config": "gpt/reward", "max_steps": 9}, Path("runs/rlhf"), model="runs/gpt")
        -> ["--config", "gpt/reward", "--max_steps", "9", "--model_name_or_path", "runs/rlhf/sft",
            "--output_dir", "runs/rlhf/reward"]

    Raises:
        DataError: a setting that the run itself makes.
    """
    if taken := sorted(set(SET_BY_THE_RUN) & settings.keys()):
        raise DataError(
            f"{name}.{taken[0]} cannot be given: in a whole run every stage begins where the one before ended, and has a "
            f"folder of its own below output_dir. Leave it out, or run recipes/{name}.py alone"
        )
    settings = dict(settings)
    if name == "ppo" and dataset is not None:
        settings.setdefault("dataset", dataset)
    start = model if name == "sft" else folder if checks else folder / "sft"
    settings |= {} if start is None else {"model_name_or_path": start}
    settings["output_dir"] = folder / ("to-check" if checks else name)
    if name == "ppo":
        learned = TRUTH if checks else folder / "reward"
        settings["rewards"] = [learned] if truth is None else [learned, truth]
        settings["reward_weights"] = [1] if truth is None else [1, 0]
    return list(words_of(settings))


def arguments_or_done(name, parse):
    """What the recipe of a stage reads of its words; None where it says that this very stage is done.

    Args:
        parse: reads them, as parse_arguments does.

    Raises:
        SystemExit: the words are wrong, or differ from those of the run that the folder holds; the user is told how the
            keys of a stage are given here.
    """
    try:
        return parse()
    except SystemExit as end:
        if end.code and rank() == 0:
            sys.stderr.write(
                f"These are keys of the stage {name}: here they are --{name}.KEY, and --{name}.allow_change KEY.\n"
            )
        if end.code:
            raise
        return None


def words_of(settings, prefix=""):
    """Flags and their words from a mapping, as a command line has them; a mapping inside becomes `--key.part`."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from words_of(value, f"{prefix}{key}.")
            continue
        yield f"--{prefix}{key}"
        yield from map(_word, value if isinstance(value, list | tuple) else [value])


def _word(value):
    """A value as it is typed."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
