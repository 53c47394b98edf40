"""What a rollout leaves for its updates, and how it is cut into minibatches and micro-batches.

Shapes: B = responses of all processes, T = tokens of the longest row, R = tokens of the longest response, N = tokens
of the responses of a micro-batch.
"""

from dataclasses import dataclass

import torch

FLAT = ("logprobs", "values", "advantages", "returns")


@dataclass
class Experience:
    """Responses of one rollout, the same in every process.

    input_ids (B, T) with padding on the right; prompt_lengths and response_lengths (B,); the rest (B, R), 0 outside of
    the responses. A response that is left out has response_lengths 0.
    """

    input_ids: torch.Tensor
    prompt_lengths: torch.Tensor
    response_lengths: torch.Tensor
    logprobs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor

    def tensors(self):
        """By name, for a checkpoint."""
        return {name: tensor.contiguous() for name, tensor in vars(self).items()}

    def micro_batch(self, rows, tokens):
        """The rows (n,) as arguments of ActorCritic.forward and of the losses, trimmed to the longest.

        Args:
            tokens: what the summed losses are divided by: the tokens of the responses of the whole minibatch.
        """
        lengths = self.prompt_lengths[rows] + self.response_lengths[rows]
        T, R = int(lengths.max()), int(self.response_lengths[rows].max())
        live = torch.arange(R, device=rows.device) < self.response_lengths[rows].unsqueeze(1)
        flat = {f"old_{name}" if name in FLAT[:2] else name: getattr(self, name)[rows, :R][live] for name in FLAT}
        return {
            "input_ids": self.input_ids[rows, :T],
            "attention_mask": (torch.arange(T, device=rows.device) < lengths.unsqueeze(1)).long(),
            "prompt_lengths": self.prompt_lengths[rows],
            "tokens": tokens,
            **flat,
        }

    def part_of_minibatch(self, part, number, size, num_parts, seed):
        """One of the micro-batches of a minibatch, which have equal numbers of rows, those of similar length together.

        Args:
            part: of the micro-batch in the minibatch.
            number: of the minibatch among all of this rollout; every pass over the rollout is a fresh permutation.
            size: rows of a minibatch.
            num_parts: micro-batches, of all processes.
            seed: of the permutations of this rollout.
        """
        per_epoch = len(self.input_ids) // size
        generator = torch.Generator().manual_seed(seed + number // per_epoch)
        order = torch.randperm(len(self.input_ids), generator=generator)
        rows = order[number % per_epoch * size :][:size].to(self.input_ids.device)
        lengths = self.prompt_lengths[rows] + self.response_lengths[rows]
        rows = rows[lengths.argsort(stable=True)]
        tokens = self.response_lengths[rows].sum().clamp(min=1)
        return self.micro_batch(rows.chunk(num_parts)[part], tokens)
