"""The training data of PPO as Trainer's loader asks for them."""

from torch.utils.data import DataLoader, Dataset


class MicroBatches(Dataset):
    """The micro-batches of one pass over the prompts; they are asked for in order, right before they are used.

    Args:
        trainer: PPOTrainer.
        number: of micro-batches in a pass, in one process.
    """

    def __init__(self, trainer, number):
        self.trainer, self.number = trainer, number

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        return self.trainer.micro_batch(index % self.trainer.args.gradient_accumulation_steps)

    def loader(self):
        """A loader that gives one micro-batch at a time, as it is; a resumed run skips without asking for any."""
        return DataLoader(self, batch_size=1, shuffle=False, collate_fn=lambda items: items[0])
