"""Optimizers that Trainer does not have, with the parameter groups language models use.

Paper: Muon is Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; its scaling to AdamW's update size
(0.2 * sqrt(max(rows, columns))) is Liu et al. 2025, https://arxiv.org/abs/2502.16982, Section 2.2. Adafactor is Shazeer
and Stern 2018, https://arxiv.org/abs/1804.04235, with the schedule of Raffel et al. 2020, "T5",
https://arxiv.org/abs/1910.10683, Section 3.1.2. AdamW scaled by the size of each parameter is that of nanoT5: Nawrot
2023, https://arxiv.org/abs/2309.02373, Section 3.
"""

import torch
from torch import nn
from transformers import Adafactor


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


def set_rate(optimizer, weights, rate):
    """Move some weights of an optimizer into groups of their own with this learning rate."""
    own = {id(weight) for weight in weights}
    for group in list(optimizer.param_groups):
        moved = [weight for weight in group["params"] if id(weight) in own]
        if moved:
            group["params"] = [weight for weight in group["params"] if id(weight) not in own]
            optimizer.add_param_group({**group, "params": moved, "lr": rate})


def hidden_matrices(model):
    """The matrices inside the network, which Muon updates: every nn.Linear's weight but that of the output layer."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    output = model.get_output_embeddings()
    embeddings |= {id(output.weight)} if output is not None else set()
    embeddings |= {id(model.score.weight)} if hasattr(model, "score") else set()
    linear = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    return [weight for weight in linear if weight.requires_grad and id(weight) not in embeddings]


def orthogonalized(matrices, coefficients, steps, eps):
    """Newton-Schulz iteration of Jordan et al.: singular values pushed to about 1, for a stack of matrices.

    Args:
        matrices: (K, rows, columns), of one shape; not changed in place.

    Returns:
        (K, rows, columns), in the dtype given.
    """
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class StackedMuon(torch.optim.Muon):
    """torch.optim.Muon with matrices of one shape orthogonalised together, on a CPU in float32.

    torch's iterates one matrix at a time in bfloat16, which a CPU without bfloat16 instructions computes many times
    slower than float32 (benchmarks/LOG.md). Options, state and, to rounding, the updates are torch's.
    """

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for parameters in shapes.values():
                self._update(parameters, group)
        return loss

    def _update(self, parameters, group):
        """Momentum, orthogonalisation, decoupled weight decay and step for matrices of one shape."""
        for p in parameters:
            self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
        gradients = torch.stack([p.grad for p in parameters])
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_lerp_(buffers, list(gradients), 1 - group["momentum"])
        update = torch.stack(buffers)
        if group["nesterov"]:
            update = gradients.lerp(update, group["momentum"])
        compute = torch.float32 if update.device.type == "cpu" else torch.bfloat16
        update = orthogonalized(update.to(compute), group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = update.shape[1:]
        scale = (
            0.2 * max(rows, columns) ** 0.5
            if group["adjust_lr_fn"] == "match_rms_adamw"
            else max(1, rows / columns) ** 0.5
        )
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(update.to(parameters[0].dtype)), alpha=-group["lr"] * scale)


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
        self.muon = StackedMuon(
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


class ScaledAdamW(torch.optim.AdamW):
    """AdamW whose rate is relative: each parameter's step is multiplied by its root mean square, at least 1e-3.

    It is what Adafactor does to the rate, and lets one rate suit embeddings of size 1 and matrices of size 0.03. Weight
    decay keeps the plain rate, as in nanoT5 (nanoT5/utils/copied_utils.py, AdamWScale).
    """

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters, group):
        """Moments, bias correction, a step in proportion to each parameter, and decoupled weight decay."""
        gradients, (beta1, beta2) = [p.grad for p in parameters], group["betas"]
        for p in parameters:
            if not self.state[p]:
                self.state[p] = {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            self.state[p]["step"] += 1
        means, squares = ([self.state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_sq"))
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        sizes = [norm / p.numel() ** 0.5 for norm, p in zip(torch._foreach_norm(parameters), parameters, strict=True)]
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_add_(denominators, group["eps"])
        updates = torch._foreach_div(means, denominators)
        steps = [int(self.state[p]["step"]) for p in parameters]  # a tensor once a state was loaded
        scales = [group["lr"] * (1 - beta2**n) ** 0.5 / (1 - beta1**n) for n in steps]
        torch._foreach_mul_(updates, [size.clamp(min=1e-3) * k for size, k in zip(sizes, scales, strict=True)])
        torch._foreach_sub_(parameters, updates)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])


def inverse_square_root(optimizer, constant_steps):
    """T5's schedule: the optimizer's rate for `constant_steps` steps, then sqrt(constant_steps / n) of it at step n."""
    first = max(constant_steps, 1)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: (first / max(n, first)) ** 0.5)


def make_optimizer(name, model, args, adamw_learning_rate=None):
    """The optimizer `name` with the rates of TrainingArguments; pass it to Trainer as `optimizers=(it, None)`.

    Args:
        name: "adamw", "muon", "adafactor" (steps in proportion to the parameter, no momentum, as T5's) or "adamw_rms"
            (steps in proportion to the parameter, as nanoT5's).
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
    if name == "adamw_rms":
        groups = parameter_groups(model, args.weight_decay)
        return ScaledAdamW(groups, lr=args.learning_rate, betas=betas, eps=args.adam_epsilon)
    if name == "adafactor":
        groups = parameter_groups(model, args.weight_decay)
        return Adafactor(groups, lr=args.learning_rate, relative_step=False, scale_parameter=True)
    raise ValueError(f'optimizer must be "adamw", "muon", "adafactor" or "adamw_rms", got {name!r}')


def optimizer_and_schedule(name, model, args, adamw_learning_rate=None):
    """What make_optimizer gives, with T5's schedule where Adafactor meets lr_scheduler_type inverse_sqrt, else None.

    In T5's the warmup_steps are steps at the full rate. Trainer makes every other schedule by itself, also inverse_sqrt
    with a linear warm-up for the other optimizers.

    Returns:
        The pair that Trainer takes as `optimizers`.
    """
    optimizer = make_optimizer(name, model, args, adamw_learning_rate)
    if name != "adafactor" or args.lr_scheduler_type != "inverse_sqrt":
        return optimizer, None
    return optimizer, inverse_square_root(optimizer, args.get_warmup_steps(args.max_steps))
