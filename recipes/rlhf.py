"""SFT, reward model and PPO in one go, with one report of what each stage has changed.

    python recipes/rlhf.py --config gpt/rlhf_tiny --output_dir runs/rlhf
    python recipes/rlhf.py --config gpt/rlhf --model_name_or_path openai-community/gpt2 --ppo.kl_coef 0.1

Paper: Ouyang et al. 2022, "InstructGPT", https://arxiv.org/abs/2203.02155, Section 3. Each stage is the recipe of its name
(sft, reward, ppo) with a config and keys of its own, in the folder output_dir/<stage>; the reward model and the policy
begin as the SFT model. Leaves report.md, report.json and over_optimisation.png: rewards, KL, wins of each stage against
the one before, and, where the true reward is known (--true_reward; on built-in data, the judge), how far the learned
reward leads away from it. The same command goes on after an interruption.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from hftoolkit.arguments import parse_arguments
from hftoolkit.errors import DataError, one_line_errors


def _stage(text):
    return field(default_factory=dict, metadata={"help": f"{text}: its config, and keys of its recipe"})


@dataclass
class RlhfArguments:
    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "the language model to begin with; none: what sft.config builds", "source": "model"},
    )
    dataset: str | None = field(
        default=None,
        metadata={"help": "prompts of PPO: builtin, files or a Hub id; none: its config's", "source": "dataset"},
    )
    sft: dict = _stage("first stage")
    reward: dict = _stage("second stage")
    ppo: dict = _stage("third stage")
    true_reward: str = field(
        default="auto",
        metadata={
            "help": "reported beside the learned reward and never learned from: a reward model, file.py:function, none, or "
                    "auto: the judge on built-in data"
        },
    )  # fmt: skip
    output_dir: str = field(default="runs/rlhf", metadata={"help": "folder", "folder": True, "may_exist": True})
    seed: int | None = field(default=None, metadata={"help": "of all stages; none: their configs'", "min": 0})
    use_cpu: bool = field(default=False, metadata={"help": "no accelerator, in any stage"})


def main(args):
    from accelerate import PartialState

    from hftoolkit.recipes import ppo, reward, sft
    from hftoolkit.rl.rlhf_checks import check_before_training, check_with_policy
    from hftoolkit.rl.rlhf_results import earlier_report, make_report
    from hftoolkit.rl.rlhf_stages import STAGES, TRUTH, arguments_or_done, stage_words
    from hftoolkit.training.disk import explained, require_writable
    from hftoolkit.training.progress import say

    # 1. The arguments of all stages are checked before the first one starts, and what they name is looked at.
    folder, recipes = Path(args.output_dir), {"sft": sft, "reward": reward, "ppo": ppo}
    options = {"model": args.model_name_or_path, "dataset": args.dataset, "truth": None}

    def arguments_of(name, **more):
        common = ({} if args.seed is None else {"seed": args.seed}) | ({"use_cpu": True} if args.use_cpu else {})
        words = stage_words(name, common | getattr(args, name), folder, **options, **more)
        return arguments_or_done(name, lambda: recipes[name].parse(words))

    require_writable(folder)
    if report := earlier_report(folder, asdict(args)):
        say(f"already done: {folder}")
        return report
    for name in STAGES:
        if "config" not in getattr(args, name):
            raise DataError(f"the stage {name} has no config: give --{name}.config, such as gpt/{name}")
    truth = args.true_reward
    if truth == "auto":
        truth = TRUTH if arguments_of("ppo", checks=True)[1].dataset == "builtin" else "none"
    options["truth"] = None if truth == "none" else truth
    settings = {name: arguments_of(name, checks=True) for name in STAGES}
    prompts = check_before_training(settings, options["truth"], args.model_name_or_path)

    # 2. The stages; one that is finished with these arguments is left as it is, and one with others is refused.
    for name in STAGES:
        say(f"stage {name}: {folder / name}")
        if (left := arguments_of(name)) is not None:
            recipes[name].main(*left)
        if name == "sft":  # tokenizer and context are known now
            check_with_policy(folder / name, settings["ppo"], prompts)

    # 3. What each has changed.
    if not PartialState().is_main_process:
        return None
    with explained(folder):
        return make_report(folder, args, prompts["validation"], settings["ppo"][4], options["truth"])


def parse(argv=None):
    return parse_arguments(RlhfArguments, argv=argv)


if __name__ == "__main__":
    with one_line_errors():
        main(*parse())
