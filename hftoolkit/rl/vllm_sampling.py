"""Rollouts by vLLM, an optional extra: TRL's VLLMGeneration moves the weights there and samples.

Only rollouts are sampled so. Their log-probabilities come from a full pass of the policy itself, so that the ratio is 1
at the first update whatever vLLM's kernels round; evaluations answer with the policy, with their fixed random numbers.
vLLM draws numbers of its own: a resumed run goes on with other responses than an unbroken one.
"""

import torch

from hftoolkit.errors import CheckpointError, MachineError
from hftoolkit.rl.sampling import Responses
from hftoolkit.training.adaptation import without_adapter

SHARED = (  # settings that VLLMGeneration calls by the same names, without `vllm_`
    "mode", "model_impl", "enable_sleep_mode", "server_base_url", "server_host", "server_port", "server_timeout",
    "group_port", "gpu_memory_utilization", "max_model_length", "tensor_parallel_size",
)  # fmt: skip


def require_vllm(policy):
    """Refuse use_vllm where it cannot work, before anything is loaded onto a device.

    Raises:
        MachineError: vLLM is missing.
        CheckpointError: a policy that vLLM cannot load by a name.
    """
    from trl.import_utils import is_vllm_available

    if not is_vllm_available():
        raise MachineError("use_vllm needs vLLM, which is not installed: pip install 'hftoolkit[vllm]' (GPUs only)")
    if not without_adapter(policy).name_or_path:
        raise CheckpointError(
            "use_vllm needs a policy that vLLM can load too, from a folder or the Hub, and this one has no name_or_path: "
            "save it with its tokenizer and load it from there"
        )


class VLLMSampler:
    """Samples rollouts with vLLM, with the weights that the policy has then.

    Args:
        trainer: PPOTrainer, with its model and accelerator.
    """

    def __init__(self, trainer):
        from trl.generation.vllm_generation import VLLMGeneration

        args = trainer.args
        self.trainer, self.length = trainer, args.response_length
        stops = {"stop_token_ids": sorted(trainer.stop_token_ids), "ignore_eos": True}  # ours, not the checkpoint's
        if trainer.stop_strings is not None:
            stops |= {"stop": trainer.stop_strings.strings, "include_stop_str_in_output": True}
        self.engine = VLLMGeneration(
            model=trainer.model.policy,
            accelerator=trainer.accelerator,
            processing_class=trainer.processing_class,
            max_num_seqs=args.rollout_batch_size // args.world_size * args.vllm_tensor_parallel_size,
            temperature=args.temperature,
            max_completion_length=args.response_length,
            logprobs=None,
            generation_kwargs=stops,
            **{name: getattr(args, f"vllm_{name}") for name in SHARED},
        )

    @torch.no_grad()
    def sync(self):
        """Give vLLM the weights of the policy; every process calls it.

        Low-rank updates are merged for it and taken out again, which would leave rounding behind in every rollout.
        """
        under_updates = [w for name, w in self.engine.model.named_parameters() if ".base_layer." in name]
        kept = [weight.clone() for weight in under_updates]
        self.engine.sync_weights()
        for weight, before in zip(under_updates, kept, strict=True):
            weight.copy_(before)

    def sample(self, prompts, pad_id):
        """A response to each prompt: Responses on the policy's device, their log-probabilities left out.

        Args:
            prompts: lists of token ids, as many in every process.
        """
        device = self.trainer.args.device
        _, rows, _, _ = self.engine.generate(prompts=prompts, images=None, num_generations=1)
        rows = [list(row)[: self.length] for row in rows]
        strings, stops = self.trainer.stop_strings, set(self.trainer.stop_token_ids)
        written = [False] * len(rows) if strings is None else strings.end(rows)
        ended = [bool(row) and (row[-1] in stops or found) for row, found in zip(rows, written, strict=True)]
        ids = [row + [pad_id] * (self.length - len(row)) for row in rows]
        lengths = torch.tensor([len(row) for row in rows], device=device)
        zeros = torch.zeros(len(rows), self.length, device=device)
        return Responses(torch.tensor(ids, device=device), lengths, zeros, torch.tensor(ended, device=device))
