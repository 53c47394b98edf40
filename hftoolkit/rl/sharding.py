"""PPO with weights that are shared out over processes (FSDP2), and what of it is refused.

Updates call the module that Accelerate has wrapped. A rollout or an evaluation gathers the weights once, layer by
layer, into a copy that is empty in between: from there on no process waits for another, so that each may sample as
many tokens and score as many micro-batches as its own responses need. The reference and reward models are whole in every
process.
"""

import contextlib
import copy
from dataclasses import replace

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from hftoolkit.errors import DataError


def require_sharding_that_works(trainer):
    """Refuse what would train on other numbers than one process; see the messages.

    Raises:
        DataError: FSDP that Accelerate has not switched on, FSDP1, weights loaded by one process only, or ZeRO-3.
    """
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    if plugin is not None and plugin.zero_stage == 3:
        raise DataError("PPO samples with whole weights, which ZeRO-3 does not give it: take stage 2, or FSDP2")
    if trainer.args.fsdp and not trainer.is_fsdp_enabled:
        kind = trainer.accelerator.distributed_type.value
        raise DataError(
            f"fsdp is set, but Accelerate runs {kind} here, with all weights in every process (on CPUs it knows no FSDP): "
            "leave fsdp out, or run on GPUs"
        )
    if not trainer.is_fsdp_enabled:
        return
    plugin = trainer.accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise DataError(
            "PPO works with FSDP2, and this is FSDP1, inside whose summon_full_params no model may run: set "
            "fsdp_version: 2 in the configuration of accelerate, or version: 2 in fsdp_config"
        )
    if plugin.cpu_ram_efficient_loading:
        raise DataError(
            "with cpu_ram_efficient_loading only the first process has the weights before training, and the reference "
            "of the others would be empty: set fsdp_cpu_ram_efficient_loading: false"
        )


class WholeWeights:
    """A copy of policy and value function without weights, into which the shared-out ones are gathered for a while.

    Args:
        trainer: PPOTrainer, before Accelerate has wrapped its model.
    """

    def __init__(self, trainer):
        self.trainer, self.copy, self.dtype = trainer, None, None
        if trainer.is_fsdp_enabled:
            empty = {id(w): nn.Parameter(torch.empty(0), requires_grad=False) for w in trainer.model.parameters()}
            self.copy = copy.deepcopy(trainer.model, empty).to(trainer.args.device).eval()
            plugin = trainer.accelerator.state.fsdp_plugin
            if plugin.mixed_precision_policy is not None:
                # Accelerate would round what the model returns too: log-probabilities to eight bits.
                plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, output_dtype=None)
                self.dtype = plugin.mixed_precision_policy.param_dtype
            if self.dtype is not None and trainer.reference.model is not None:
                trainer.reference.model.to(self.dtype)

    @contextlib.contextmanager
    def gathered(self):
        """Policy and value function with all their weights, in evaluation mode; every process calls it."""
        pair = self.trainer.model
        if self.copy is None or not any(isinstance(weight, DTensor) for weight in pair.parameters()):
            if self.copy is not None:
                pair.to(self.trainer.args.device)  # an evaluation before the first update: nothing is wrapped yet
            training = pair.training
            pair.eval()
            try:
                yield pair
            finally:
                pair.train(training)
            return
        weights = dict(self.copy.named_parameters())
        try:
            with torch.no_grad():
                for name, weight in pair.named_parameters():
                    full = weight.to(self.trainer.args.device)
                    full = full.full_tensor() if isinstance(full, DTensor) else full
                    weights[name].data = full.to(self.dtype or full.dtype)
            yield self.copy
        finally:
            for weight in weights.values():
                weight.data = torch.empty(0, device=weight.device)

    def precision_of(self, pair):
        """What is open while a pair that was gathered computes, so that it does as in an update.

        FSDP2 computes in the dtype of its weights, without autocast.
        """
        return contextlib.nullcontext() if pair is self.copy else self.trainer.accelerator.autocast()
