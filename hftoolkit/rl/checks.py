"""What PPO asks of a policy, found out before anything is sampled."""

import torch

from hftoolkit.data.prompts import as_dataset, tokenize_prompts
from hftoolkit.errors import CheckpointError, DataError
from hftoolkit.rl.actor_critic import last_hidden_state
from hftoolkit.rl.ptx import context_length
from hftoolkit.rl.scoring import unique_names
from hftoolkit.training.adaptation import without_adapter


def reward_weights(args, functions):
    """Weights of the reward functions, (F,): those of args, or 1 each.

    Raises:
        DataError: no function, another number of weights, or none that is not 0.
    """
    if not functions:
        raise DataError("reward_funcs is empty: PPO needs at least one reward")
    weights = args.reward_weights or [1.0] * len(functions)
    if len(weights) != len(functions):
        raise DataError(
            f"{len(weights)} reward_weights for {len(functions)} reward functions: give one for each of "
            f"{', '.join(unique_names(functions))}, in this order, or leave reward_weights out (1 each)"
        )
    if not any(weights):
        raise DataError(
            f"reward_weights are {weights}: a reward of weight 0 is only reported, and nothing is left to learn from; give "
            "one of them another weight"
        )
    return torch.tensor(weights)


def stop_tokens(args, tokenizer, config):
    """Ids of the tokens that end a response: those of args, or the tokenizer's end of text; none may be needed.

    Raises:
        DataError: neither has one and there are no stop_strings, or an id outside of the vocabulary.
    """
    given = args.stop_token_ids or ([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])
    if not given and not args.stop_strings:
        raise DataError(
            "no token ends a response: the tokenizer has no eos_token; set one, or give stop_token_ids or stop_strings"
        )
    size = config.get_text_config(decoder=True).vocab_size
    if outside := [number for number in given if not 0 <= number < size]:
        raise DataError(
            f"stop_token_ids {outside} are outside of the vocabulary of {size} tokens: give ids below {size}"
        )
    return list(given)


def prompt_options(args, config, value_model=None, reference=None, num_workers=None):
    """How prompts are tokenized, as keywords of tokenize_prompts: each leaves room for the longest response.

    Args:
        config: of the policy.
        value_model, reference: the models that read prompts and responses beside the policy, or None.
        num_workers: processes that tokenize; None for none beside this one.

    Raises:
        DataError: responses of this length leave no room for a prompt; naming the model.
    """
    others = {"value model": value_model, "reference": reference}
    configs = {"policy": config}
    configs |= {name: without_adapter(model).config for name, model in others.items() if model is not None}
    limits = {name: context_length(found) for name, found in configs.items()}
    known = [name for name, limit in limits.items() if limit is not None]
    reader = min(known, key=limits.get, default="policy")  # the first of equals
    limit = limits[reader]
    if limit is not None and limit <= args.response_length:
        raise DataError(
            f"response_length {args.response_length} leaves no room for a prompt: the {reader} reads {limit} tokens; set "
            "a smaller response_length"
        )
    room = None if limit is None else limit - args.response_length
    longest = min((length for length in (room, args.max_prompt_length) if length is not None), default=2**31)
    return {"max_prompt_length": longest, "on_long": args.on_long_prompt, "num_workers": num_workers}


def planned_steps(args):
    """The max_steps of a run: as many as total_episodes take, or those that were set where these are fewer."""
    if args.total_episodes is None:
        return args.max_steps
    steps = -(-args.total_episodes // args.rollout_batch_size) * args.updates_per_rollout
    return min(steps, args.max_steps) if args.max_steps > 0 else steps


def training_prompts(dataset, tokenizer, options, rollout_batch_size):
    """Prompts with the column prompt_ids.

    Raises:
        DataError: too few prompts, or several splits; see hftoolkit.data.prompts.
    """
    if isinstance(dataset, dict):
        raise DataError(f"train_dataset has the splits {', '.join(map(str, dataset))}: give one of them")
    prompts = tokenize_prompts(as_dataset(dataset), tokenizer, **options)
    if len(prompts) < rollout_batch_size:
        raise DataError(
            f"{len(prompts)} training prompts, and a rollout takes {rollout_batch_size}: give more prompts, or set "
            f"rollout_batch_size to at most {len(prompts)}"
        )
    return prompts


def held_out_prompts(dataset, tokenizer, options):
    """Prompts to evaluate on: None, a data set, or several by name; tokenized ones stay as they are."""
    if isinstance(dataset, dict):
        return {name: held_out_prompts(rows, tokenizer, options) for name, rows in dataset.items()}
    if dataset is None or "prompt_ids" in getattr(dataset, "column_names", ()):
        return dataset
    return tokenize_prompts(as_dataset(dataset), tokenizer, **options, name="evaluation")


@torch.no_grad()
def require_readable_policy(pair):
    """Refuse a policy or value model that is not causal, and one whose logits are more than its head of its last states.

    Raises:
        CheckpointError: naming the model and what is wrong with it.
    """
    for name, adapter in getattr(pair.policy, "peft_config", {}).items():
        if adapter.is_prompt_learning:
            raise CheckpointError(
                f"the adapter {name!r} is {adapter.peft_type.value}, whose virtual tokens PPO would leave out when it scores "
                "responses: use LoRA or another adapter of the layers"
            )
    policy = without_adapter(pair.policy)
    config = policy.config.get_text_config(decoder=True)
    ids = torch.arange(6, device=policy.device).unsqueeze(0) % config.vocab_size
    training = policy.training
    policy.eval()
    hidden = last_hidden_state(policy, ids, torch.ones_like(ids))
    logits = policy(input_ids=ids, use_cache=False).logits
    policy.train(training)
    if not torch.allclose(policy.get_output_embeddings()(hidden).float(), logits.float(), rtol=1e-2, atol=1e-2):
        raise CheckpointError(
            f"the logits of {type(policy).__name__} are not its output layer applied to its last hidden state (they are "
            "capped or scaled): PPO here would train another function"
        )
    for model in filter(None, (policy, pair.value_model)):
        _require_causal(without_adapter(model), ids)


def _require_causal(model, ids):
    changed = ids.clone()
    changed[0, -1] = (changed[0, -1] + 1) % model.config.get_text_config(decoder=True).vocab_size
    training = model.training
    model.eval()
    before, after = (last_hidden_state(model, x, torch.ones_like(x))[0, :-1].float() for x in (ids, changed))
    model.train(training)
    if not torch.allclose(before, after, rtol=1e-2, atol=1e-2):
        raise CheckpointError(
            f"{type(model).__name__} is not causal: its states change with tokens that come later, so it cannot be a "
            "policy or a value function; use a causal model (as a reward model it may serve)"
        )
