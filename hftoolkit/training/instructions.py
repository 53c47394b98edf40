"""TRL's SFTTrainer in this house: exact evaluation of the answers, reports that resume, no telemetry, no card of its own.

    trainer = instruction_trainer(model=model, args=sft_config, train_dataset=..., processing_class=tokenizer)

What TRL does stays as it is: tokens and labels of prompts and conversations, the end token behind a completion, packing,
and a loss that is computed from the last hidden states and the output layer without the logits of a whole batch.
"""

import math
import time

import torch
from torch.utils.data import DataLoader, Subset
from transformers.trainer_utils import speed_metrics

from hftoolkit.errors import CheckpointError, DataError
from hftoolkit.training.adaptation import without_adapter
from hftoolkit.training.trl_trainers import TrlReports, require_plain_output_layer, require_trl

PROBED = 6  # tokens of each of the two examples on which packing is tried


def instruction_trainer(judge=None, **options):
    """An SFTTrainer with exact evaluation.

    Args:
        judge: called with the trainer at every evaluation; returns more metrics, {name: number}.
        options: of trl.SFTTrainer; the model is one already, and eval_dataset a single data set.

    Raises:
        MachineError: trl is not installed.
        DataError: settings that TRL refuses, or no answer that fits into max_length.
        CheckpointError: a model whose logits are not its output layer's of its last hidden states; packing with a model
            whose examples would see one another.
    """
    require_trl("supervised fine-tuning")
    from trl import SFTTrainer

    class InstructionTrainer(AnswerEvaluation, SFTTrainer):
        pass

    try:
        trainer = InstructionTrainer(**options)
    except ValueError as error:
        whole = (
            "; --assistant_only_loss false scores all of a conversation" if options["args"].assistant_only_loss else ""
        )
        raise DataError(f"TRL refuses these settings: {error}{whole}") from error
    limit = trainer.args.max_length
    for name, rows in (("training", trainer.train_dataset), ("validation", trainer.eval_dataset)):
        if rows is not None and not any(label != -100 for row in rows for label in row["labels"]):
            raise DataError(
                f"of the {name} data no answer begins within max_length {limit}: raise it, or shorten the prompts"
            )
    _show_bias(without_adapter(trainer.model).get_output_embeddings())
    first = trainer.train_dataset[0]["input_ids"]
    require_plain_output_layer(trainer, first)
    if trainer.args.packing:
        _require_kept_apart(trainer, first)
    trainer.judge = judge
    return trainer


class AnswerEvaluation(TrlReports):
    """What stands before SFTTrainer among the bases of a trainer.

    The evaluation is exact: sums over all scored tokens, where Trainer would average the means of batches. `judge` adds
    metrics of its own.
    """

    judge = None

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Loss, perplexity and accuracy over the scored tokens, how many they are, and what the judge says.

        Args:
            eval_dataset: token rows as the trainer's own; None is its own.
        """
        self.take_up_reports()
        start, was_training = time.time(), self.model.training
        self.model.eval()
        try:
            nats, right, tokens = self.answer_totals(self.eval_dataset if eval_dataset is None else eval_dataset)
            metrics = {
                "loss": nats / tokens,
                "perplexity": math.exp(min(nats / tokens, 700.0)),
                "token_accuracy": right / tokens,
                "answer_tokens": int(tokens),
            }
            metrics |= {} if self.judge is None else self.judge(self)
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
            metrics.update(speed_metrics(metric_key_prefix, start, num_tokens=int(tokens)))
            self.log(metrics)
        finally:
            self.model.train(was_training)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def answer_totals(self, rows):
        """(loss in nats, right guesses, number) summed over all scored tokens of all processes."""
        sharded = self.is_fsdp_enabled
        model = self.model_wrapped if sharded else self.accelerator.unwrap_model(self.model)
        world, size = self.args.world_size, self.args.per_device_eval_batch_size
        shared = world > 1 and not sharded
        fewest = math.ceil(len(rows) // world / size) if shared else math.inf  # batches that every process has
        part = Subset(rows, range(self.args.process_index, len(rows), world)) if shared else rows
        totals = torch.zeros(3, dtype=torch.float64)
        for number, batch in enumerate(DataLoader(part, size, collate_fn=self.data_collator)):
            batch = self._prepare_inputs(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                output = model(**batch, fused_lm_head=True)
            found = (-output.log_probs, output.is_top1, output.label_mask)
            totals += torch.stack([values.sum(dtype=torch.float64).cpu() for values in found])
            if number < fewest:  # a callback may ask all processes, so each must call it as often as the others
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        if shared:
            totals = self.accelerator.reduce(totals.to(self.args.device), "sum").cpu()
        return totals.tolist()


def _require_kept_apart(trainer, ids):
    """Refuse a model for which position ids that begin anew are no boundary: another example changes the next one's logits."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return
    model, was_training = trainer.accelerator.unwrap_model(trainer.model), trainer.model.training
    second = (ids * PROBED)[:PROBED]
    rows = [[token] * PROBED + second for token in (second[0], abs(second[0] - 1))]
    positions = torch.arange(PROBED, device=model.device).repeat(2).unsqueeze(0)
    kind = type(without_adapter(model)).__name__
    model.eval()
    try:
        with torch.no_grad():
            one, other = (
                model(torch.tensor([row], device=model.device), position_ids=positions, use_cache=False)
                .logits[0]
                .float()
                for row in rows
            )
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{kind} cannot read packed examples ({error}): set packing to false") from error
    finally:
        model.train(was_training)
    one, other = one[PROBED:], other[PROBED:]
    if not torch.allclose(one, other, atol=1e-3, rtol=1e-3):
        raise CheckpointError(
            f"{kind} does not keep packed examples apart: what stands in one changes the logits of the next by "
            f"{(one - other).abs().max().item():.2g}; set packing to false"
        )


def _show_bias(output_layer):
    """PEFT's wrapper of an output layer that is tied to trained embeddings shows its weight, but TRL reads its bias too."""
    from peft.utils import TrainableTokensWrapper

    if isinstance(output_layer, TrainableTokensWrapper):
        vars(output_layer)["bias"] = vars(output_layer.original_module).get("bias")  # None is no parameter
