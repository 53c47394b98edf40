"""A Trainer that learns word vectors: a step is a batch of rows, within which the vectors change every few words.

Checkpoints, schedules, reports and resuming are Trainer's own; only what happens inside a step is not: no autograd, no
optimizer (one of no effect carries the learning rate), and two matrices changed in place.
"""

import math

import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer

from hftoolkit.data.skipgram import BLOCK
from hftoolkit.errors import DataError, DivergedError
from hftoolkit.training.word_vectors import Blocks, Cbow, CbowSoftmax, SkipGram, SkipGramSoftmax

LOWEST_SHARE = 1e-4  # of the learning rate: word2vec.c, TrainModelThread
RATES = {"skipgram": 0.025, "cbow": 0.05, "ppmi_svd": 0.0}  # word2vec.c, main; counts have none


class WordVectorTrainer(Trainer):
    """Trains HftWord2VecForMaskedLM by skip-gram or CBOW, against noise or with the full softmax.

    Rows come in the order of the data set, which shuffles itself (hftoolkit.data.training_rows).

    Args:
        data_collator: a WindowCollator; without negatives the softmax goes over all words.
        update_words: words read before the vectors change, a multiple of 16.

    Raises:
        DataError: several processes, number formats other than float32, or accumulation of gradients.
    """

    def __init__(self, model, args, data_collator, train_dataset, *, update_words, **options):
        _check_options(args, model)
        if update_words < BLOCK or update_words % BLOCK:
            raise DataError(f"update_words is {update_words}, but must be a multiple of {BLOCK}")
        matrices = model.model.embed_tokens.weight, model.lm_head.weight
        optimizer = torch.optim.SGD(matrices, lr=args.learning_rate)
        options |= {"optimizers": (optimizer, None)}
        super().__init__(model, args, data_collator, train_dataset, **options)
        self.args.remove_unused_columns = False  # the collator reads what the model does not: the number of the row
        self.args.max_grad_norm = 0.0  # there are no gradients to clip
        cbow, num_negatives = model.config.objective == "cbow", data_collator.num_negatives
        self.update_words = update_words
        kind = (CbowSoftmax if cbow else SkipGramSoftmax) if num_negatives == 0 else Cbow if cbow else SkipGram
        self.objective = kind(*(matrix.data for matrix in matrices), num_negatives)

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    @torch.no_grad()
    def training_step(self, model, inputs, num_items_in_batch=None):
        """Change the vectors by all words of a batch; returns the mean loss of its predictions, in nats.

        Raises:
            DivergedError: a loss is not finite.
        """
        batch = self._prepare_inputs(inputs)
        word_vectors = self.accelerator.unwrap_model(model)
        self.objective.inputs = word_vectors.model.embed_tokens.weight.data
        self.objective.outputs = word_vectors.lm_head.weight.data
        base = self.args.learning_rate
        rate = max(self.optimizer.param_groups[0]["lr"], base * LOWEST_SHARE)
        size, losses, numbers = self.update_words // BLOCK, [], []
        blocks = Blocks(batch, word_vectors.config.window_size, together=size)
        for begin in range(0, len(blocks), size):
            loss, number = self.objective.update(blocks, slice(begin, begin + size), rate)
            losses.append(loss)
            numbers.append(number)
        loss = torch.stack(losses).sum() / torch.stack(numbers).sum().clamp(min=1)
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}, learning rate {rate:g}: lower "
                "learning_rate, or update_words"
            )
        return loss


def _check_options(args, model):
    """Refuse what a step that is not Trainer's own cannot do."""
    if args.world_size > 1:
        raise DataError(f"{args.world_size} processes: word vectors are trained in one; start it without a launcher")
    if args.bf16 or args.fp16 or next(model.parameters()).dtype != torch.float32:
        raise DataError("bf16, fp16 and dtype: the small steps of word vectors need float32; leave them out")
    if args.gradient_accumulation_steps > 1:
        raise DataError(
            f"gradient_accumulation_steps is {args.gradient_accumulation_steps}: the vectors change within a batch; raise "
            "per_device_train_batch_size instead"
        )
