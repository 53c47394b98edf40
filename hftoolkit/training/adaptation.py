"""What fine-tuning changes in a pretrained model: everything, only the head, or low-rank updates (LoRA).

Papers: LoRA is Hu et al. 2021, https://arxiv.org/abs/2106.09685, Section 4.1; layer-wise learning-rate decay is Clark
et al. 2020, "ELECTRA", https://arxiv.org/abs/2003.10555, Appendix A.1 (Howard and Ruder 2018, Section 3.2).
"""

import re
from pathlib import Path

from torch import nn
from transformers import Trainer
from transformers.pytorch_utils import Conv1D

from hftoolkit.errors import DataError
from hftoolkit.training.optimizers import make_optimizer

LAYER_NUMBER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")
EMBEDDINGS = re.compile(r"(?:^|\.)(?:embed\w*|wte|wpe)(?:\.|$)")
NEEDS_ITS_OWN_GROUPS = ("params", "model", "optimizer_dict")  # what Trainer gives to optimizers like GaLore and LOMO


def adapt(model, adaptation_args, new_tokens=()):
    """Prepare a loaded model for the kind of fine-tuning that AdaptationArguments ask for.

    The head is everything outside the base model that is not tied to it, and the base model's pooler, which many
    checkpoints do not have.

    full: every weight is trained.
    frozen: only the head is trained. What is frozen computes as in evaluation, without dropout.
    lora: every linear layer of the base model gets a low-rank update, and the head is trained whole. Dropout is as in
        full fine-tuning. The run saves the merged model, which needs no PEFT, and the updates alone in `adapter/`.

    Args:
        new_tokens: ids whose embeddings are new; lora trains these rows too.

    Returns:
        The model to train, changed in place; for lora a peft.PeftModel around it.
    """
    if adaptation_args.adaptation == "frozen":
        _freeze(model)
    if adaptation_args.adaptation == "lora":
        return _with_lora(model, adaptation_args, new_tokens)
    return model


def with_new_weights(model):
    """A model of the same class and config, newly initialised: what is reached without pretraining."""
    return type(model)(model.config).to(model.dtype)


def head_modules(model):
    """Names of the modules that make up the head of a model for a task."""
    base = model.base_model_prefix
    if model.base_model is model:
        return []
    shared = {id(parameter) for parameter in model.base_model.parameters()}  # an output layer tied to the embeddings
    names = [
        name
        for name, child in model.named_children()
        if name != base and any(id(parameter) not in shared for parameter in child.parameters())
    ]
    if getattr(model.base_model, "pooler", None) is not None:
        names.append(f"{base}.pooler")
    return names


def _freeze(model):
    head = {id(p) for name in head_modules(model) for p in model.get_submodule(name).parameters()}
    if not head:
        raise ValueError(f"{type(model).__name__} has no head beside its base model: there is nothing left to train")
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in head)
    # Trainer switches the whole model to training at every step; this switches the frozen part back.
    model.base_model.register_forward_pre_hook(_evaluate)


def _evaluate(module, inputs):
    module.eval()


def _with_lora(model, adaptation_args, new_tokens):
    from peft import LoraConfig, get_peft_model

    base, head = model.base_model_prefix, head_modules(model)
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and name.startswith(f"{base}.")
        and not any(name == part or name.startswith(f"{part}.") for part in head)
    ]
    if not linear:
        raise DataError(
            f"adaptation lora: {type(model).__name__} has no linear layers beside its head; use full or frozen"
        )
    embeddings = next(name for name, module in model.named_modules() if module is model.get_input_embeddings())
    config = LoraConfig(
        trainable_token_indices={embeddings: list(new_tokens)} if new_tokens else None,
        r=adaptation_args.lora_rank,
        lora_alpha=adaptation_args.lora_alpha,
        lora_dropout=adaptation_args.lora_dropout,
        target_modules=linear,
        modules_to_save=head,
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in linear),
    )
    return get_peft_model(model, config)


def is_update(name):
    """Whether a parameter of a model with an adapter is not one of the merged model."""
    return any(part in name for part in (".lora_", ".original_module.", ".trainable_tokens_"))


def merged_state_dict(peft_model, adapter="default"):
    """Weights of the model inside a PeftModel, by its own names, with the low-rank updates added; nothing is changed.

    Merging in place and undoing it would leave rounding behind, so that a run could not go on from there bit for bit.
    """
    layers = dict(peft_model.get_base_model().named_modules())
    merged = {}
    for name, weight in peft_model.get_base_model().state_dict().items():
        if is_update(name):
            continue
        if name.endswith(".token_adapter.base_layer.weight"):
            name = name.replace(".token_adapter.base_layer", "")
            weight = layers[name.removesuffix(".weight")].token_adapter.get_merged_weights([adapter])
        elif name.endswith(".base_layer.weight"):
            weight = weight + layers[name.removesuffix(".base_layer.weight")].get_delta_weight(adapter)
        merged[name.replace(".base_layer.", ".").replace(f".modules_to_save.{adapter}.", ".")] = weight
    return merged


def without_adapter(model):
    """The model inside a PeftModel, any other model itself."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def exported(model):
    """What a run leaves of the module that it trained: of a policy with its value function, the policy."""
    return getattr(model, "exported_model", model)


def save_merged(peft_model, folder):
    """Turn a folder in which a PeftModel was saved into that of the merged model, with the updates in `adapter/`."""
    folder = Path(folder)
    (folder / "adapter").mkdir()
    for path in [*folder.glob("adapter_*"), folder / "README.md"]:  # PEFT's own card belongs to the adapter
        if path.is_file():
            path.rename(folder / "adapter" / path.name)
    peft_model.get_base_model().save_pretrained(folder, state_dict=merged_state_dict(peft_model))


def tuning_optimizer(model, training_args, layer_decay, name="trainer", adamw_learning_rate=None):
    """The optimizer that fine-tuning asks for; see layer_decay_optimizer and hftoolkit.training.optimizers.

    Args:
        name: "trainer" is that of TrainingArguments, "muon" updates the hidden matrices by Muon.
        adamw_learning_rate: with Muon, the rate of the other weights.

    Returns:
        An optimizer for `Trainer(optimizers=(it, None))`; None where Trainer's own will do.

    Raises:
        DataError: Muon with a rate for each layer, which it does not have; see also layer_decay_optimizer.
    """
    if name == "trainer":
        return layer_decay_optimizer(model, training_args, layer_decay)
    if layer_decay != 1:
        raise DataError(f"layer_decay {layer_decay} works with optimizer trainer only: leave it 1 with {name}")
    return make_optimizer(name, model, training_args, adamw_learning_rate)


def layer_decay_optimizer(model, training_args, layer_decay):
    """The optimizer of TrainingArguments with a learning rate that falls from layer to layer.

    The head, the pooler and a last norm have the full rate, the topmost of L layers `layer_decay` times that, and the
    embeddings, the lowest, layer_decay ** (L + 1) times. Weight decay applies to matrices only.

    Returns:
        An optimizer for `Trainer(optimizers=(it, None))`; None where layer_decay is 1, because Trainer's own will do.

    Raises:
        ValueError: no layers are found by the names of the parameters, or the optimizer makes groups of its own.
    """
    if layer_decay == 1:
        return None
    optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(training_args, model)
    if own := [name for name in NEEDS_ITS_OWN_GROUPS if name in options]:
        raise ValueError(f"layer_decay does not work with optim={training_args.optim}, which sets {own[0]} itself")
    return optimizer_class(layer_decay_groups(model, training_args, layer_decay), **options)


def layer_decay_groups(model, training_args, layer_decay):
    """Parameter groups for layer_decay_optimizer, the embeddings' first."""
    numbers = [int(found[1]) for name, _ in model.named_parameters() if (found := LAYER_NUMBER.search(name))]
    if not numbers:
        raise ValueError(
            f"layer_decay={layer_decay}: {type(model).__name__} has no parameters named layers.N., h.N. ..."
        )
    top = max(numbers) + 2  # of the head; the embeddings are at 0 and layer N is at N + 1
    groups = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found = LAYER_NUMBER.search(name)
            depth = int(found[1]) + 1 if found else 0 if EMBEDDINGS.search(name) else top
            groups.setdefault((depth, parameter.ndim >= 2), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": training_args.learning_rate * layer_decay ** (top - depth),
            "weight_decay": training_args.weight_decay if is_matrix else 0.0,
        }
        for (depth, is_matrix), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
