"""Data sets that draw their rows afresh in every epoch, the same in every process and worker.

hftoolkit.data.training_rows asks for the rows of any epoch. A data set of its own has one epoch at a time, as
`set_epoch` says. A stock Trainer calls that through accelerate, but in the simplest case only: not with several
processes, and not where batches are skipped to resume (DataLoaderShard.set_epoch stops at the sampler);
hftoolkit.training.epochs.TellEpoch, a callback, closes that gap.
"""

import torch
from torch.utils.data import get_worker_info

from hftoolkit.errors import DataError


class DrawnRows(torch.utils.data.Dataset):
    """Base of data sets whose rows are a function of (seed, epoch).

    A row is a dictionary that names its `index` and `epoch`, from which the collator makes its random numbers; Trainer
    must not take these two away (remove_unused_columns=False). A subclass has `draw(epoch)`, which returns the plan
    of an epoch, any object; `rows(plan, indices, epoch)`, a list of rows; and sets `_length`, which never changes,
    because Trainer computes the steps of all epochs from it once. Neither depends on the present epoch.

    Args:
        redraw: False keeps the rows of epoch 0, for evaluation.
    """

    def __init__(self, redraw):
        self.redraw = redraw
        # Shared, so that workers that live through all epochs (persistent_workers) hear of the next one.
        self._shared = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._own = None  # what a worker was told itself, which is no other process's business
        self._drawn, self._plan = None, None

    def set_epoch(self, epoch):
        """Draw the rows of this epoch; nothing happens where they are drawn already."""
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, got {epoch}")
        if self.redraw and get_worker_info() is None:
            self._shared[0] = int(epoch)
        elif self.redraw:
            self._own = int(epoch)
        self._current()

    def _current(self):
        epoch = self._shared.item() if self._own is None else self._own
        if self._drawn != epoch:
            self._drawn, self._plan = epoch, self.draw(epoch)
        return self._plan

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.__getitems__([index % len(self)])[0]

    def __getitems__(self, indices):  # DataLoader asks for a whole batch where it can
        plan = self._current()
        return self.rows(plan, indices, self._drawn)

    @property
    def tokens_per_row(self):
        """Mean number of tokens in a row, special ones included."""
        return self.summary()["tokens"] / len(self)


def edge_tokens(tokenizer):
    """Ids of [CLS] and [SEP].

    Raises:
        DataError: the tokenizer lacks one.
    """
    for role in ("cls", "sep"):
        if getattr(tokenizer, f"{role}_token_id") is None:
            raise DataError(
                f"the tokenizer has no {role}_token, which frames BERT's segments; use a wordpiece tokenizer"
            )
    return tokenizer.cls_token_id, tokenizer.sep_token_id
