"""Optimizers that Trainer does not have, with the parameter groups language models use.

Paper: Muon is Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; its scaling to AdamW's update size
(0.2 * sqrt(max(rows, columns))) is Liu et al. 2025, https://arxiv.org/abs/2502.16982, Section 2.2.
"""

import torch
from torch import nn


def parameter_groups(model, weight_decay):
    """Weight decay on matrices only: not on biases and gains (GPT-1, Section 4.1: "all non bias or gain weights").

    Returns:
        Two groups of named parameters for a torch optimizer; a tied parameter appears once.
    """
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for _, p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for _, p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]


def hidden_matrices(model):
    """The matrices inside the network, which Muon updates: every nn.Linear's weight but that of the output layer."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    output = model.get_output_embeddings()
    embeddings |= {id(output.weight)} if output is not None else set()
    embeddings |= {id(model.score.weight)} if hasattr(model, "score") else set()
    linear = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    return [weight for weight in linear if weight.requires_grad and id(weight) not in embeddings]


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon on the hidden matrices and AdamW on everything else, behind one optimizer.

    Schedulers see the groups of both; each group keeps its own learning rate.

    Args:
        lr: Muon's learning rate; with the scaling of Liu et al. a rate that suits AdamW suits it too.
        adamw_lr: of embeddings, biases and gains; None is `lr`.
    """

    def __init__(self, model, lr, adamw_lr=None, weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8, momentum=0.95):
        matrices = hidden_matrices(model)
        taken = {id(p) for p in matrices}
        rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
        if not matrices:
            raise ValueError(f"{type(model).__name__} has no hidden matrix for Muon; use AdamW")
        self.muon = torch.optim.Muon(
            matrices, lr=lr, weight_decay=weight_decay, momentum=momentum, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw = torch.optim.AdamW(
            rest, lr=lr if adamw_lr is None else adamw_lr, betas=betas, eps=eps, weight_decay=0.0, fused=True
        )
        super().__init__(self.muon.param_groups + self.adamw.param_groups, {})
        self._share_groups()

    def _share_groups(self):
        """Both optimizers read the very groups that schedulers write to, and keep their state in this one."""
        self.muon.param_groups, self.adamw.param_groups = self.param_groups[:1], self.param_groups[1:]
        self.muon.state = self.adamw.state = self.state

    def step(self, closure=None):
        loss = None if closure is None else closure()
        self.muon.step()
        self.adamw.step()
        return loss

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self._share_groups()


def make_optimizer(name, model, args, adamw_learning_rate=None):
    """The optimizer `name` with the rates of TrainingArguments; pass it to Trainer as `optimizers=(it, None)`.

    Args:
        name: "adamw" or "muon".
        args: learning_rate, weight_decay, adam_beta1, adam_beta2 and adam_epsilon are read.
        adamw_learning_rate: with Muon, the rate of what AdamW updates; None is learning_rate.

    Raises:
        ValueError: an unknown name.
    """
    betas = (args.adam_beta1, args.adam_beta2)
    if name == "adamw":
        groups = parameter_groups(model, args.weight_decay)
        return torch.optim.AdamW(groups, lr=args.learning_rate, betas=betas, eps=args.adam_epsilon, fused=True)
    if name == "muon":
        return MuonWithAdamW(
            model, args.learning_rate, adamw_learning_rate, args.weight_decay, betas, args.adam_epsilon
        )
    raise ValueError(f'optimizer must be "adamw" or "muon", got {name!r}')
