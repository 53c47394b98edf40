"""TRL's DPOTrainer in this house: pairs tokenised here, a reference that is always there, exact evaluation.

    trainer = preference_trainer(model=model, args=dpo_config, train_dataset=pairs, processing_class=tokenizer)

Paper: Rafailov et al. 2023, "Direct Preference Optimization", https://arxiv.org/abs/2305.18290, Equation 7:
    loss = -log sigmoid(beta log(pi(w|x) / ref(w|x)) - beta log(pi(l|x) / ref(l|x)))
with w the better answer to x and l the worse one. The implicit reward of an answer is beta log(pi / ref).
"""

import copy

import torch
from torch.utils.data import DataLoader

from hftoolkit.errors import DataError
from hftoolkit.training.adaptation import without_adapter
from hftoolkit.training.trl_trainers import TrlManners, require_plain_output_layer, require_trl, switch_off_dropout


def preference_trainer(judge=None, **options):
    """A DPOTrainer on rows of data.preferences_pairs.

    The reference is the model before training: a copy of it, or with an adapter the model with the adapter switched
    off. With precompute_ref_log_probs it is asked once, before training, and not kept.

    Args:
        judge: called with the trainer at every evaluation; returns more metrics, {name: number}.
        options: of trl.DPOTrainer; the model is one already, and eval_dataset a single data set.

    Raises:
        MachineError: trl is not installed.
        DataError: settings that TRL refuses, or no pair that fits into max_length.
        CheckpointError: a model whose logits are not its output layer's of its last hidden states.
    """
    require_trl("direct preference optimisation")
    from trl import DPOTrainer

    class PreferenceTrainer(PairEvaluation, DPOTrainer):
        pass

    model, args = options["model"], options["args"]
    for name in ("train", "eval"):
        rows = options.get(f"{name}_dataset")
        if rows is not None and len(rows) == 0:
            raise DataError(
                f"of the {name} data no answer leaves room for its prompt within max_length {args.max_length}: raise it"
            )
    if args.disable_dropout:
        switch_off_dropout(model)
    has_adapter = without_adapter(model) is not model
    if not has_adapter and not args.precompute_ref_log_probs:
        options["ref_model"] = copy.deepcopy(model).requires_grad_(False).eval()
    try:
        trainer = PreferenceTrainer(**options)
    except (ValueError, NotImplementedError) as error:
        raise DataError(f"TRL refuses these settings: {error}") from error
    require_plain_output_layer(trainer, trainer.train_dataset[0]["prompt_ids"])
    trainer.judge = judge
    return trainer


class PairEvaluation(TrlManners):
    """What stands before DPOTrainer among the bases of a trainer."""

    def _prepare_dataset(self, dataset, *args):
        """The rows are token ids already."""
        return dataset

    def rows_in(self, inputs):
        """Pairs: their better answers stand before their worse ones."""
        return len(inputs["input_ids"]) // 2

    def reference_margins(self, rows):
        """By how much the reference likes the better answer: log ref(w|x) - log ref(l|x) (N,), and per token (N,).

        Every process computes all of them.
        """
        model = self.accelerator.unwrap_model(self.ref_model or self.model)
        sums, means = [], []
        for batch in DataLoader(rows, self.args.per_device_eval_batch_size, collate_fn=self.data_collator):
            batch = self._prepare_inputs(batch)
            if "ref_chosen_logps" in batch:
                scores = batch["ref_chosen_logps"], batch["ref_rejected_logps"]
            else:
                scores = self.compute_ref_log_probs(model, batch)
            lengths = batch["completion_mask"].sum(1).chunk(2)
            sums.append(scores[0] - scores[1])
            means.append(scores[0] / lengths[0] - scores[1] / lengths[1])
        return torch.cat(sums).float().cpu(), torch.cat(means).float().cpu()


def preference_baselines(trainer):
    """What is reached before training, and by the reference's own likelihood as the reward, on the held-out pairs.

    Before training every implicit reward is 0, so that half the pairs are right by chance (TRL, which counts ties as
    wrong, reports 0 there). The likelihood is taken of the whole answer, and as the mean over its tokens.
    """
    if trainer.eval_dataset is None:
        return {}
    first = next((e for e in trainer.state.log_history if e.get("step") == 0 and "eval_loss" in e), {})
    kept = {name: value for name, value in first.items() if name == "eval_loss" or name.endswith("_answers")}
    before = kept | {"eval_rewards/accuracies": 0.5, "eval_rewards/margins": 0.0}
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return {"baselines": {"before_training": before}}
    trainer.model.eval()
    whole, per_token = trainer.reference_margins(trainer.eval_dataset)
    found = {"reference_likelihood": whole, "reference_mean_likelihood": per_token}
    accuracies = {name: {"eval_rewards/accuracies": float((m > 0).float().mean())} for name, m in found.items()}
    return {"baselines": {"before_training": before} | accuracies}
