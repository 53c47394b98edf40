"""One process of a distributed PPO run: `python ppo_process.py FOLDER OPTIONS_AS_JSON`; its weights go to FOLDER/RANK.pt."""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, DistributedType
from torch.distributed.tensor import DTensor
from transformers import AutoModelForSequenceClassification

from hftoolkit.models.modeling_gpt import HftGptConfig
from hftoolkit.rl.evaluation import evaluate_reference

sys.path.insert(0, str(Path(__file__).parent))

from tiny_ppo import (  # noqa: E402
    SIZES,
    count_low_words,
    history,
    tiny_policy,
    tiny_prompts,
    tiny_text,
    tiny_trainer,
    weights,
)


def raise_in_the_second(completions, **columns):
    """A reward that fails in one process only."""
    if os.environ["RANK"] == "1":
        raise OSError("no connection")
    return count_low_words(completions)


def share_out_on_the_cpu():
    """Make Accelerate run FSDP over processes of the CPU, which torch can and it does not ask for."""
    plain = AcceleratorState.__init__

    def with_fsdp(self, *args, fsdp_plugin=None, **kwargs):
        plain(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
        if "fsdp_plugin" in self.__dict__:  # every new AcceleratorState takes the kind over from PartialState again
            self.distributed_type = DistributedType.FSDP

    AcceleratorState.__init__ = with_fsdp


def main(folder, options):
    torch.set_num_threads(1)
    if options.get("fsdp"):
        share_out_on_the_cpu()
    if options.pop("lora", False):
        from peft import LoraConfig

        options["peft_config"] = LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], r=2)
    if options.get("ptx_coef"):
        options["ptx_dataset"] = tiny_text()
    if options.pop("raise_in_the_second", False):
        options["reward"] = raise_in_the_second
    if options.pop("separate", False):
        torch.manual_seed(5)
        config = HftGptConfig(vocab_size=20, max_position_embeddings=32, num_labels=1, **SIZES)
        options["value_model"] = AutoModelForSequenceClassification.from_config(config)
        options["policy"] = tiny_policy("hft_gpt")
    checkpoint = options.pop("resume", None)
    trainer = tiny_trainer(folder, eval_dataset=tiny_prompts(6), **options)
    trainer.train(resume_from_checkpoint=checkpoint)
    found = trainer.evaluate()
    names = ("loss", "grad_norm", "objective/kl", "objective/scores", "val/ratio", "policy/approxkl_avg")
    reports = {name: history(trainer, name) for name in names}
    state = {"weights": weights(trainer), "reports": reports, "eval": found}
    held = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in trainer.model.parameters()]
    state["held"] = sum(weight.numel() for weight in held)
    state["before"] = evaluate_reference(trainer, trainer.eval_dataset)
    trainer.save_model(folder)
    torch.save(state, Path(folder) / f"{os.environ.get('RANK', 'alone')}.pt")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
