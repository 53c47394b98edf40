"""Truncated back-propagation through time: the text in contiguous streams, and the state carried from batch to batch.

All documents, laid end to end, are cut into as many streams as a batch has rows; batch after batch reads the next stretch
of every stream and begins with the state that the last one left, while the gradient ends at the stretch's beginning.
Papers: Williams and Peng 1990; Mikolov et al. 2010; Zaremba et al. 2014, https://arxiv.org/abs/1409.2329, Section 4.1.

The loss is the mean over all tokens of a step. Programs that follow Zaremba et al. sum it over the T tokens of a stretch:
with plain SGD their rate r and largest gradient norm c are r T and c / T here (1 and 5 at T = 20: 20 and 0.25).
Shapes: B = streams, T = tokens of a stretch.
"""

import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, SequentialSampler

from hftoolkit.data.language_modeling import flatten
from hftoolkit.errors import DataError
from hftoolkit.training.token_loss import TokenLossTrainer

STATE_FILE = "carried_state.safetensors"
EVALUATED_AT_ONCE = 512  # tokens; it changes no number, because the state is carried


class ContiguousStreams(torch.utils.data.Dataset):
    """Documents as streams; B items that follow each other are the same stretch of all streams.

    Args:
        documents: with the column `input_ids`, each ended by `end`.
        streams: B. The last tokens, fewer than B, are left out, with one stream none.
        length: T; the last stretch of a stream may be shorter.
        end: the token that ends a document; it stands before the first one, so that every token is predicted.

    Attributes:
        tokens: all of them, (N + 1,); offsets: they count as one document, [0, N + 1]. Both as n-gram baselines read them.

    Raises:
        DataError: fewer tokens than streams.

    Example (2 streams, T = 2, end e):
        documents  [a b e] [c d e]
        items      (e a -> a b) (e c -> c d) | (b -> e) (d -> e)
    """

    def __init__(self, documents, streams, length, end):
        tokens, offsets = flatten(documents)
        self.documents, self.streams, self.length = len(offsets) - 1, streams, length
        self.tokens = np.concatenate([np.array([end], dtype=tokens.dtype), tokens])
        self.offsets = np.array([0, len(self.tokens)])
        self.in_stream = len(tokens) // streams
        if self.in_stream == 0:
            raise DataError(
                f"the text has {len(tokens)} tokens, too few for {streams} streams: give more text, or a smaller "
                "per_device_train_batch_size"
            )
        self.stretches = math.ceil(self.in_stream / length)

    def __len__(self):
        return self.stretches * self.streams

    def __getitem__(self, index):
        """(inputs (T,), targets (T,), whether the stream begins here)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        stretch, stream = divmod(index, self.streams)
        first = stretch * self.length
        last = min(first + self.length, self.in_stream)
        place = slice(stream * self.in_stream + first, stream * self.in_stream + last)
        return self.tokens[place], self.tokens[place.start + 1 : place.stop + 1], stretch == 0

    def summary(self):
        """What the plan of a run and the model card tell about the data."""
        read = self.in_stream * self.streams
        return {"documents": self.documents, "tokens": read, "streams": self.streams, "stretches": self.stretches}


def collate_streams(rows):
    """One stretch of all streams: input_ids, shift_labels and labels (B, T), which are the next tokens, and `begins`."""
    inputs, targets = (torch.from_numpy(np.stack([row[number] for row in rows]).astype(np.int64)) for number in (0, 1))
    return dict(input_ids=inputs, shift_labels=targets, labels=targets, begins=torch.tensor(rows[0][2]))


class TruncatedBpttTrainer(TokenLossTrainer):
    """A TokenLossTrainer that carries the state of a model from batch to batch, through checkpoints and evaluations.

    The model takes past_key_values and returns them, a StateCache. The data are ContiguousStreams, of which the training
    data have as many streams as a batch has rows. `evaluated` is what token_loss found last.

    Raises:
        DataError: several processes or devices, whose batches would not follow each other.
    """

    def __init__(self, model=None, args=None, **options):
        super().__init__(model, args, collate_streams, **options)
        self.carried, self.evaluated = None, None
        if self.args.world_size > 1 or self.args.n_gpu > 1:
            raise DataError(
                "truncated back-propagation through time needs one process and one device: each would read every other "
                "stretch of a stream, with the state of another place"
            )

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of a stretch, from the state that the last one left; the gradient does not enter that one."""
        if bool(inputs.pop("begins")):
            self.carried = None
        outputs = model(**inputs, past_key_values=self.carried, use_cache=True, num_items_in_batch=num_items_in_batch)
        self.carried = outputs.past_key_values
        self.carried.change(torch.Tensor.detach)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def token_loss(self, dataset):
        """(mean loss in nats per token, number of tokens) over all streams of a data set."""
        model, carried, total, count = self.accelerator.unwrap_model(self.model), None, 0.0, 0
        was_training = model.training
        model.eval()
        loader = DataLoader(dataset, dataset.streams, collate_fn=collate_streams)
        self.callback_handler.eval_dataloader = loader
        for batch in loader:
            batch = self._prepare_inputs(batch)
            carried = None if bool(batch.pop("begins")) else carried
            with torch.no_grad(), self.compute_loss_context_manager():
                options = dict(num_items_in_batch=1, logits_to_keep=1, use_cache=True)
                outputs = model(**batch, **options, past_key_values=carried)
            carried, total, count = (
                outputs.past_key_values,
                total + float(outputs.loss),
                count + batch["labels"].numel(),
            )
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        model.train(was_training)
        self.evaluated = total / count, count
        return self.evaluated

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        if self.carried is not None and self.carried.state is not None:
            state = self.carried.state
            parts = state if isinstance(state, tuple) else (state,)
            save_file(
                {f"state.{number}": part.contiguous() for number, part in enumerate(parts)},
                Path(output_dir) / STATE_FILE,
                metadata={"is_tuple": str(isinstance(state, tuple)), "dim": str(self.carried.dim)},
            )

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (Path(checkpoint) / STATE_FILE).is_file():
            self.carried = read_state(Path(checkpoint) / STATE_FILE, self.args.device)


def read_state(path, device="cpu"):
    """The StateCache that a checkpoint holds."""
    from safetensors import safe_open

    from hftoolkit.models.layers_cache import StateCache

    with safe_open(path, "pt") as file:
        facts = file.metadata()
    parts = load_file(path, device=str(device))
    parts = tuple(parts[f"state.{number}"] for number in range(len(parts)))
    cache = StateCache(int(facts["dim"]))
    cache.move_on(parts if facts["is_tuple"] == "True" else parts[0], 0)
    return cache
