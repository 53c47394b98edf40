"""The optimizer of PPO: rates of their own for the value function, and for each layer, where they are asked for."""

from types import SimpleNamespace

from hftoolkit.errors import DataError
from hftoolkit.training.adaptation import layer_decay_groups, layer_decay_optimizer
from hftoolkit.training.optimizers import set_rate


def create_optimizer(trainer, plain):
    """The optimizer of a PPOTrainer, made at the first call.

    Args:
        plain: makes Trainer's own in trainer.optimizer, unless there is one, and returns it.
    """
    args, fresh = trainer.args, trainer.optimizer is None
    if fresh and trainer.layer_decay != 1:
        trainer.optimizer = layered_optimizer(trainer.model, args, trainer.layer_decay)
        return trainer.optimizer
    optimizer = plain()
    if fresh and args.value_learning_rate is not None:
        set_rate(optimizer, trainer.model.value_parameters(), args.value_learning_rate)
    return optimizer


def layered_optimizer(pair, args, layer_decay):
    """See hftoolkit.training.adaptation.layer_decay_optimizer; the value function begins at value_learning_rate.

    A value head has the full rate; a value model, which may have another number of layers, falls by its own.

    Args:
        pair: ActorCritic.
        args: PPOConfig.

    Raises:
        DataError: a model has no numbered layers, or the optimizer makes groups of its own.
    """
    rate = args.learning_rate if args.value_learning_rate is None else args.value_learning_rate
    of_value = SimpleNamespace(learning_rate=rate, weight_decay=args.weight_decay)
    try:
        optimizer = layer_decay_optimizer(pair.policy, args, layer_decay)
        if pair.value_model is not None:
            groups = layer_decay_groups(pair.value_model, of_value, layer_decay)
        else:
            weight, bias = pair.value_head.weight, pair.value_head.bias
            groups = [
                {"params": [weight], "lr": rate, "weight_decay": args.weight_decay},
                {"params": [bias], "lr": rate, "weight_decay": 0.0},
            ]
    except ValueError as error:
        raise DataError(f"{error}; leave layer_decay 1") from error
    for group in groups:
        optimizer.add_param_group(group)
    return optimizer
