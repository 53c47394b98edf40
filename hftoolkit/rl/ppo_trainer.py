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

import contextlib

import torch
from torch.utils.data import DataLoader
from transformers import Trainer

from hftoolkit.data.prompts import as_dataset, tokenize_prompts
from hftoolkit.errors import DataError
from hftoolkit.rl import ppo_checkpoint
from hftoolkit.rl.actor_critic import ActorCritic
from hftoolkit.rl.checks import require_readable_policy, stop_tokens
from hftoolkit.rl.kl_control import KLController
from hftoolkit.rl.losses import approximate_kl, clipped_policy_loss, clipped_value_loss
from hftoolkit.rl.make_experience import evaluate_prompts, make_experience
from hftoolkit.rl.rollout import Reference
from hftoolkit.rl.scoring import RunningNorm
from hftoolkit.training.loss_parts import LossParts

PARTS = {  # per token of a minibatch, means over the updates since the last report; TRL's names where it had them
    "policy_loss": "loss/policy_avg",
    "value_loss": "loss/value_avg",
    "ptx_loss": "loss/ptx_avg",
    "approximate_kl": "policy/approxkl_avg",
    "clipped": "policy/clipfrac_avg",
    "value_clipped": "val/clipfrac_avg",
    "ratio": "val/ratio",
}


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
        eval_dataset: held-out prompts.
        processing_class: the policy's tokenizer.
        ptx_dataset: rows of `input_ids` of equal length, pretraining text for ptx_coef.
        peft_config: wraps the policy.

    Raises:
        ValueError: see ActorCritic, PPOConfig.updates_per_rollout and checks.
        DataError: no or too few prompts; see hftoolkit.data.prompts.
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
    ):
        self.updates_per_rollout = args.updates_per_rollout
        if args.ptx_coef and ptx_dataset is None:
            raise ValueError(f"ptx_coef is {args.ptx_coef}, but there is no ptx_dataset: give one, or leave it 0")
        if peft_config is not None:
            from peft import get_peft_model

            model = get_peft_model(model, peft_config)
        self.reward_funcs = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
        if not self.reward_funcs:
            raise ValueError("reward_funcs is empty: PPO needs at least one reward")
        weights = args.reward_weights or [1.0] * len(self.reward_funcs)
        if len(weights) != len(self.reward_funcs):
            raise ValueError(f"{len(weights)} reward_weights for {len(self.reward_funcs)} reward functions")
        self.reward_weights = torch.tensor(weights)
        pair = ActorCritic(model, value_model, args.temperature)
        require_readable_policy(pair)
        self.stop_token_ids = stop_tokens(args, processing_class, pair.config)
        self.reference = Reference(model, ref_model)
        limit = getattr(pair.config, "max_position_embeddings", None)
        prompts, held_out = self._tokenized(train_dataset, eval_dataset, processing_class, args, limit)
        if args.total_episodes is not None:
            rollouts = -(-args.total_episodes // args.rollout_batch_size)
            args.max_steps = rollouts * self.updates_per_rollout
        self.kl_control = KLController(args.kl_coef, args.kl_target, args.kl_horizon)
        self.score_norm = RunningNorm() if args.score_norm else None
        self.ptx_dataset, self.experience, self.rollout_report = ptx_dataset, None, {}
        self.stopped_by = None  # why the training ended early
        super().__init__(
            model=pair,
            args=args,
            train_dataset=prompts,
            eval_dataset=held_out,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self.add_callback(LossParts(list(PARTS)))
        if self.reference.model is not None:
            self.reference.model.to(args.device)

    @staticmethod
    def _tokenized(train_dataset, eval_dataset, tokenizer, args, limit):
        """Both splits with the column prompt_ids."""
        longest = args.max_prompt_length if limit is None else limit - args.response_length
        if longest is not None and longest < 1:
            raise ValueError(
                f"response_length {args.response_length} leaves no room for a prompt: the model reads {limit} tokens"
            )
        longest = min(filter(None, (longest, args.max_prompt_length)), default=2**31)
        options = {"max_prompt_length": longest, "on_long": args.on_long_prompt}
        prompts = tokenize_prompts(as_dataset(train_dataset), tokenizer, **options)
        if len(prompts) < args.rollout_batch_size:
            raise DataError(
                f"{len(prompts)} training prompts, and a rollout takes {args.rollout_batch_size}: give more prompts, or set "
                f"rollout_batch_size to at most {len(prompts)}"
            )
        if eval_dataset is not None:
            eval_dataset = tokenize_prompts(as_dataset(eval_dataset), tokenizer, **options, name="evaluation")
        return prompts, eval_dataset

    # The training data are the rollouts.

    def get_train_dataloader(self):
        """A loader whose items are micro-batches of experience; one pass uses every prompt once, but for a remainder."""
        rollouts = len(self.train_dataset) // self.args.rollout_batch_size
        number = rollouts * self.updates_per_rollout * self.args.gradient_accumulation_steps
        batches = MicroBatches(self, number)
        return DataLoader(batches, batch_size=1, shuffle=False, collate_fn=batches.only)

    def micro_batch(self, part):
        """Micro-batch `part` of this process, of the update that comes next; a new rollout where the last one ended."""
        args = self.args
        rollout, number = divmod(self.state.global_step, self.updates_per_rollout)
        if part == 0 and (number == 0 or self.experience is None):
            self.experience, self.rollout_report = make_experience(self, rollout)
        parts = args.gradient_accumulation_steps * args.world_size
        seed = args.seed + 1_000_003 * rollout
        found = self.experience.minibatch(number, args.minibatch_size, parts, seed)[
            part * args.world_size + args.process_index
        ]
        if args.ptx_coef:
            generator = torch.Generator().manual_seed(
                args.seed + 7_919 * self.state.global_step + args.process_index + part
            )
            rows = torch.randint(
                len(self.ptx_dataset), (args.ptx_batch_size * args.per_device_train_batch_size,), generator=generator
            )
            found["ptx_input_ids"] = torch.tensor(self.ptx_dataset[rows.tolist()]["input_ids"])
        return found

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Clipped policy loss and vf_coef times clipped value loss, summed over tokens and divided by all of the minibatch.

        With ptx_coef, plus its multiple of the language model's mean loss (Ouyang et al. 2022, equation 2).
        """
        args = self.args
        names = ("input_ids", "attention_mask", "prompt_lengths")
        new, ptx_loss, _ = model(*(inputs[name] for name in names), inputs.get("ptx_input_ids"))
        advantages, old = inputs["advantages"], inputs["old_logprobs"]
        policy, ratio, clipped = clipped_policy_loss(new.logprobs, old, advantages, args.cliprange)
        value, value_clipped = clipped_value_loss(
            new.values, inputs["old_values"], inputs["returns"], args.cliprange_value
        )
        sums = [policy, value, None, approximate_kl(new.logprobs, old), clipped.float(), value_clipped.float(), ratio]
        zero = new.logprobs.new_zeros(())
        share = zero if ptx_loss is None else ptx_loss / (args.gradient_accumulation_steps * args.world_size)
        parts = torch.stack([share if part is None else part.sum() / inputs["tokens"] for part in sums])
        loss = parts[0] + args.vf_coef * parts[1] + args.ptx_coef * parts[2]
        self._note(parts.detach())
        loss = loss * args.world_size  # DDP takes the mean over the processes
        return (loss, {"logprobs": new.logprobs, "values": new.values}) if return_outputs else loss

    def _note(self, parts):
        LossParts.of(self).add(self.accelerator.reduce(parts, "sum").tolist())

    def log(self, logs, *args, **kwargs):
        """Report the parts of the loss and the last rollout wherever the loss is reported."""
        parts = LossParts.of(self)
        if "loss" in logs and parts.steps:
            found = {PARTS[name]: value for name, value in parts.report().items()}
            if not self.args.ptx_coef:
                del found["loss/ptx_avg"]
            logs |= self.rollout_report | found
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
        found = evaluate_prompts(self, data)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluate_reference(self):
        """What the reference reaches on the held-out prompts, with the same random numbers as `evaluate`."""
        policy = self.model.policy
        with policy.disable_adapter() if self.reference.by_adapter else contextlib.nullcontext():
            self.model.policy = policy if self.reference.by_adapter else self.reference.model
            try:
                return evaluate_prompts(self, self.eval_dataset)
            finally:
                self.model.policy = policy

    # Two learning rates, and checkpoints of two models.

    def create_optimizer(self, *args, **kwargs):
        """Trainer's optimizer; with value_learning_rate, the weights of the value function in groups of their own."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        rate = self.args.value_learning_rate
        if fresh and rate is not None:
            own = {id(weight) for weight in self.model.value_parameters()}
            for group in list(optimizer.param_groups):
                moved = [weight for weight in group["params"] if id(weight) in own]
                if moved:
                    group["params"] = [weight for weight in group["params"] if id(weight) not in own]
                    optimizer.add_param_group({**group, "params": moved, "lr": rate})
        return optimizer

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        ppo_checkpoint.save_progress(self, trial)

    def _save(self, output_dir=None, state_dict=None):
        ppo_checkpoint.save_models(self, super()._save, output_dir or self.args.output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        ppo_checkpoint.load_policy(self, super()._load_from_checkpoint, resume_from_checkpoint)
        ppo_checkpoint.load_value_and_progress(self, resume_from_checkpoint)

    def _load_best_model(self):
        self._load_from_checkpoint(self.state.best_model_checkpoint)


class MicroBatches(torch.utils.data.Dataset):
    """The micro-batches of one pass over the prompts; they are asked for in order, right before they are used."""

    def __init__(self, trainer, number):
        self.trainer, self.number = trainer, number

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        return self.trainer.micro_batch(index % self.trainer.args.gradient_accumulation_steps)

    @staticmethod
    def only(items):
        """The one item of a list."""
        return items[0]
