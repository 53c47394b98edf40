"""Tell the training data which epoch begins."""

from transformers import TrainerCallback


class TellEpoch(TrainerCallback):
    """Calls `set_epoch` of the training data at the beginning of each epoch.

    accelerate 1.x forwards the epoch to the data set only with one process and where no batch is skipped; otherwise a
    run of several processes would see the rows of epoch 0 for ever, and a resumed one in its first epoch.
    """

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        dataset = getattr(train_dataloader, "dataset", None)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int((state.epoch or 0) + 1e-6))
