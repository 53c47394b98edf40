"""PPO as a transformers.Trainer whose training batches are what its own policy has just written.

    trainer = PPOTrainer(model, args=PPOConfig(...), reward_funcs=[reward], train_dataset=prompts, processing_class=tokenizer)
    trainer.train()

Papers: Schulman et al. 2017, https://arxiv.org/abs/1707.06347; Ziegler et al. 2019, https://arxiv.org/abs/1909.08593;
Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, Section 3.5 and Appendix C.4.

A rollout: draw prompts, sample responses (hftoolkit.rl.sampling), score them (scoring), ask the reference and the value
function (rollout), make rewards and advantages (advantages), and cut the experience into minibatches (experience). One
step of Trainer is one minibatch; accumulation, clipping, schedules, callbacks, checkpoints and DDP are Trainer's own.
Shapes: B = responses of all processes, R = longest response, F = reward functions.
"""

from functools import partial
from pathlib import Path

import torch
from transformers import Trainer

from hftoolkit.errors import DataError
from hftoolkit.rl import learning_rates, ppo_checkpoint
from hftoolkit.rl.actor_critic import ActorCritic
from hftoolkit.rl.checks import (
    held_out_prompts,
    planned_steps,
    prompt_options,
    require_readable_policy,
    reward_weights,
    stop_tokens,
    training_prompts,
)
from hftoolkit.rl.evaluation import evaluate_prompts
from hftoolkit.rl.kl_control import KLController
from hftoolkit.rl.losses import ppo_parts
from hftoolkit.rl.make_experience import make_experience
from hftoolkit.rl.micro_batches import MicroBatches
from hftoolkit.rl.ppo_reports import PARTS, together
from hftoolkit.rl.ptx import ptx_rows, require_ptx, require_ptx_rows
from hftoolkit.rl.rollout import Reference
from hftoolkit.rl.scoring import RunningNorm, unique_names
from hftoolkit.rl.sharding import WholeWeights, require_sharding_that_works
from hftoolkit.rl.stop_strings import StopStrings
from hftoolkit.rl.vllm_sampling import VLLMSampler, require_vllm
from hftoolkit.training.loss_parts import LossParts


class PPOTrainer(Trainer):
    """Trains a causal language model against rewards, kept near a reference by a KL penalty.

    Args:
        model: the policy: a causal language model of transformers, or a PEFT model.
        args: PPOConfig.
        reward_funcs: reward models (hftoolkit.rl.reward_model.RewardModel) and functions
            `f(prompts, completions, completion_ids, **columns) -> list of numbers`; one or a list.
        value_model: None for a head on the policy's trunk, or a sequence classifier with one label.
        ref_model: the reference; None is the policy as it is now (PEFT: without the new adapters).
        train_dataset: prompts, a data set or list of rows with `prompt` (text or conversation) or `input_ids`; other
            columns go to the reward functions.
        eval_dataset: held-out prompts, or a dictionary of several such data sets.
        processing_class: the policy's tokenizer.
        ptx_dataset: rows of `input_ids` of equal length, pretraining text for ptx_coef.
        peft_config: wraps the policy.
        layer_decay: each layer's learning rate is this times that of the layer above; see learning_rates.
        num_workers: processes that tokenize the prompts; None for none beside this one.

    Raises:
        CheckpointError: a model that cannot serve; see ActorCritic and checks.
        DataError: settings or data that cannot serve; see PPOConfig.updates_per_rollout, checks, ptx, sharding and
            hftoolkit.data.prompts.
        MachineError: use_vllm without vLLM.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by the tokens of the whole minibatch

    def __init__(
        self,
        model,
        args,
        reward_funcs,
        train_dataset,
        processing_class,
        *,
        value_model=None,
        ref_model=None,
        eval_dataset=None,
        ptx_dataset=None,
        peft_config=None,
        callbacks=None,
        optimizers=(None, None),
        layer_decay=1.0,
        num_workers=None,
    ):
        self.updates_per_rollout, self.layer_decay = args.updates_per_rollout, layer_decay
        if args.use_vllm:
            require_vllm(model)
        require_ptx(args.ptx_coef, ptx_dataset)
        if peft_config is not None:
            from peft import get_peft_model

            model = get_peft_model(model, peft_config)
        self.reward_funcs = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
        self.reward_weights = reward_weights(args, self.reward_funcs)
        pair = ActorCritic(model, value_model, args.temperature)
        require_readable_policy(pair)
        self.stop_token_ids = stop_tokens(args, processing_class, pair.config)
        self.stop_strings = StopStrings(args.stop_strings, processing_class) if args.stop_strings else None
        self.reference = Reference(model, ref_model)
        self.reward_names = unique_names(self.reward_funcs)
        require_ptx_rows(ptx_dataset, pair.config)
        self.prompt_options = prompt_options(args, pair.config, value_model, self.reference.model, num_workers)
        prompts = training_prompts(train_dataset, processing_class, self.prompt_options, args.rollout_batch_size)
        held_out = held_out_prompts(eval_dataset, processing_class, self.prompt_options)
        args.max_steps = planned_steps(args)
        self.kl_control = KLController(args.kl_coef, args.kl_target, args.kl_horizon)
        self.score_norm = RunningNorm() if args.score_norm else None
        self.ptx_dataset, self.experience = ptx_dataset, None
        self.rollout_report, self.unreported = {}, []  # of the last rollout; of all since the last report
        self.stopped_by = None  # why the training ended early
        self.samples, self.samples_step = [], None  # of the last evaluation, and the step at which it was
        super().__init__(
            model=pair,
            args=args,
            train_dataset=prompts,
            eval_dataset=held_out,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        require_sharding_that_works(self)
        self.weights = WholeWeights(self)
        self.part_names = [name for name in PARTS if args.ptx_coef or name != "ptx_loss"]
        self.add_callback(LossParts(self.part_names))
        for model in self.frozen_models:
            model.to(args.device)
        self.vllm = VLLMSampler(self) if args.use_vllm else None

    @property
    def frozen_models(self):
        """The reference, where it is a model of its own, and the reward models."""
        found = (self.reference.model, *(getattr(function, "model", None) for function in self.reward_funcs))
        return list(dict.fromkeys(model for model in found if isinstance(model, torch.nn.Module)))

    # The training data are the rollouts.

    def get_train_dataloader(self):
        """A loader whose items are micro-batches of experience; one pass uses every prompt once, but for a remainder."""
        rollouts = len(self.train_dataset) // self.args.rollout_batch_size
        number = rollouts * self.updates_per_rollout * self.args.gradient_accumulation_steps
        return MicroBatches(self, number).loader()

    def micro_batch(self, part):
        """Micro-batch `part` of this process, of the update that comes next; a new rollout where the last one ended."""
        args = self.args
        rollout, number = divmod(self.state.global_step, self.updates_per_rollout)
        if part == 0 and (number == 0 or self.experience is None):
            self._sample(rollout)
        own = part * args.world_size + args.process_index  # among the micro-batches of all processes
        parts, seed = args.gradient_accumulation_steps * args.world_size, args.seed + 1_000_003 * rollout
        found = self.experience.part_of_minibatch(own, number, args.minibatch_size, parts, seed)
        if args.ptx_coef:
            found["ptx_input_ids"] = ptx_rows(self.ptx_dataset, args, self.state.global_step, own)
        return found

    def _sample(self, rollout):
        """The experience of the next updates.

        Raises:
            DataError: a reward failed; the updates so far are in a checkpoint, unless save_strategy is "no".
            StopIteration: the KL is above max_kl, and no update is to follow.
        """
        if self.stopped_by is None:
            try:
                self.experience, self.rollout_report = make_experience(self, rollout)
                self.unreported.append(self.rollout_report)
            except DataError:
                step, args = self.state.global_step, self.args
                if step and args.save_strategy != "no" and not Path(args.output_dir, f"checkpoint-{step}").exists():
                    self._save_checkpoint(self.model_wrapped, trial=None)
                raise
            if self.stopped_by is not None:
                self.log(dict(self.rollout_report))
        if self.stopped_by is not None:
            raise StopIteration

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Clipped policy loss and vf_coef times clipped value loss, summed over tokens and divided by all of the minibatch.

        With ptx_coef, plus its multiple of the language model's mean loss (Ouyang et al. 2022, equation 2).
        """
        args = self.args
        names = ("input_ids", "attention_mask", "prompt_lengths")
        new, ptx_loss, _ = model(*(inputs[name] for name in names), inputs.get("ptx_input_ids"))
        parts = ppo_parts(new, inputs, args.cliprange, args.cliprange_value)
        share = args.gradient_accumulation_steps * args.world_size
        parts["ptx_loss"] = new.logprobs.new_zeros(()) if ptx_loss is None else ptx_loss / share
        loss = parts["policy_loss"] + args.vf_coef * parts["value_loss"] + args.ptx_coef * parts["ptx_loss"]
        noted = torch.stack([parts[name].detach() for name in self.part_names])
        LossParts.of(self).add(self.accelerator.reduce(noted, "sum").tolist())
        loss = loss * args.world_size  # DDP takes the mean over the processes
        return (loss, {"logprobs": new.logprobs, "values": new.values}) if return_outputs else loss

    def log(self, logs, *args, **kwargs):
        """Report wherever the loss is: its parts, and the rollouts since the last report, or the last one."""
        parts = LossParts.of(self)
        if "loss" in logs and parts.steps:
            logs |= together(self.unreported or [self.rollout_report])
            logs |= {PARTS[name]: value for name, value in parts.report().items()}
            self.unreported = []
        super().log(logs, *args, **kwargs)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Sample responses to held-out prompts, always with the same random numbers.

        Returns:
            `eval_reward` (weighted sum of the rewards), `eval_kl` and `eval_rlhf_reward` (reward less the penalty) per
            response in nats, `eval_length` in tokens, `eval_ended` (share that ends), and each reward by its name.
        """
        data = self.eval_dataset if eval_dataset is None else eval_dataset
        if data is None:
            raise DataError("there are no prompts to evaluate on: give eval_dataset")
        data = held_out_prompts(data, self.processing_class, self.prompt_options)
        if isinstance(data, dict):
            each = [self.evaluate(rows, ignore_keys, f"{metric_key_prefix}_{name}") for name, rows in data.items()]
            return {name: value for metrics in each for name, value in metrics.items()}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in evaluate_prompts(self, data).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # Two learning rates, and checkpoints of two models.

    def create_optimizer(self, *args, **kwargs):
        """Trainer's optimizer, but with the rates that layer_decay and value_learning_rate ask for."""
        return learning_rates.create_optimizer(self, partial(super().create_optimizer, *args, **kwargs))

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        ppo_checkpoint.save_progress(self, trial)

    def _save(self, output_dir=None, state_dict=None):
        ppo_checkpoint.save_models(self, super()._save, output_dir or self.args.output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        ppo_checkpoint.load_policy(self, super()._load_from_checkpoint, resume_from_checkpoint, model)
        ppo_checkpoint.load_value_and_progress(self, resume_from_checkpoint)

    def _load_best_model(self):
        self._load_from_checkpoint(self.state.best_model_checkpoint)
