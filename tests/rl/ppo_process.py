"""One process of a distributed PPO run: `python ppo_process.py FOLDER OPTIONS_AS_JSON`; its weights go to FOLDER/RANK.pt."""

import json
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from tiny_ppo import count_low_words, history, tiny_prompts, tiny_text, tiny_trainer, weights  # noqa: E402


def raise_in_the_second(completions, **columns):
    """A reward that fails in one process only."""
    if os.environ["RANK"] == "1":
        raise OSError("no connection")
    return count_low_words(completions)


def main(folder, options):
    torch.set_num_threads(1)
    if options.pop("lora", False):
        from peft import LoraConfig

        options["peft_config"] = LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], r=2)
    if options.get("ptx_coef"):
        options["ptx_dataset"] = tiny_text()
    if options.pop("raise_in_the_second", False):
        options["reward"] = raise_in_the_second
    checkpoint = options.pop("resume", None)
    trainer = tiny_trainer(folder, eval_dataset=tiny_prompts(6), **options)
    trainer.train(resume_from_checkpoint=checkpoint)
    found = trainer.evaluate()
    names = ("loss", "grad_norm", "objective/kl", "objective/scores", "val/ratio", "policy/approxkl_avg")
    reports = {name: history(trainer, name) for name in names}
    state = {"weights": weights(trainer), "reports": reports, "eval": found}
    torch.save(state, Path(folder) / f"{os.environ.get('RANK', 'alone')}.pt")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
