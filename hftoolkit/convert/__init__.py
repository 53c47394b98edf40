"""Weights from and to the stock classes of transformers; equal logits both ways.

`from_stock(model)` and `to_stock(model)` convert a model in memory, `convert_folder(source, destination)` a saved one
with its tokenizer; a folder with a published biLM (ELMo: options.json and HDF5), which transformers does not have, becomes
one of ours. Each architecture has one file beside this one with its table of names.
"""

import importlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import torch

from hftoolkit.convert import bert, elmo, gpt, t5, transformer
from hftoolkit.errors import CheckpointError

CONVERSIONS = gpt.CONVERSIONS + bert.CONVERSIONS + t5.CONVERSIONS + transformer.CONVERSIONS
DERIVED = re.compile(r"attn\.(masked_)?bias$")  # causal masks that old stock checkpoints carry; not weights


def _by_stock(config):
    found = [conversion for conversion in CONVERSIONS if conversion.model_type == config.model_type]
    if not found:
        known = ", ".join(dict.fromkeys(conversion.model_type for conversion in CONVERSIONS))
        raise CheckpointError(
            f"cannot convert the architecture {config.model_type!r} from transformers; known: {known}"
        )
    return next((conversion for conversion in found if not _refused(conversion, config)), found[0])


def _refused(conversion, config):
    """The options of a stock config that have no counterpart, with their values."""
    values = {name: getattr(config, name, allowed) for name, allowed in conversion.only_stock.items()}
    return {name: value for name, value in values.items() if value != conversion.only_stock[name]}


def _by_ours(config):
    for conversion in CONVERSIONS:
        if conversion.our_type == config.model_type and conversion.takes(config):
            return conversion
    raise CheckpointError(f"{config.model_type!r} has no counterpart in transformers")


def _rows(conversion, head, layers):
    """(stock name, our names, layout) of every tensor of a model with this head."""
    bare = head["ours"].endswith("Model")
    stock_prefix = head.get("prefix", conversion.prefix)
    prefix = "" if bare or not stock_prefix else f"{stock_prefix}."
    our_prefix = "" if bare else "model."
    for stock, ours, layout in conversion.table:
        for i in range(layers) if "{}" in stock else [None]:
            yield prefix + stock.format(i), [our_prefix + name.format(i) for name in ours], layout
    yield from head["rows"]


def _layers(config):
    """How many layers the deepest stack of a model of ours has."""
    return max(config.num_hidden_layers, getattr(config, "num_decoder_layers", 0))


def _labels(head, config):
    """The config fields of the classes, for heads that have as many outputs as there are classes."""
    keys = ("id2label", "label2id", "problem_type") if head.get("has_labels", True) else ()
    return {key: getattr(config, key) for key in keys}


def _to_ours(tensor, layout):
    """A stock tensor as it lies here."""
    if layout == transformer.AS_ROW:
        return tensor.squeeze(0)
    return tensor.T if layout == gpt.TRANSPOSE else tensor


def _to_theirs(tensor, layout):
    """The other way round."""
    if layout == transformer.AS_ROW:
        return tensor.unsqueeze(0)
    return tensor.T if layout == gpt.TRANSPOSE else tensor


def _own_numbers(conversion):
    """Names of the tensors that the stock class computes by itself, if its architecture has any."""
    return getattr(conversion, "own_numbers", ())


def _load(model, state_dict, source):
    """Load everything or nothing."""
    _untie(model, state_dict, source)
    missing, unexpected = model.load_state_dict(state_dict, strict=False)
    if missing or unexpected:
        raise CheckpointError(
            f"converting {source}: without a counterpart {sorted(unexpected)[:3]}, not found {sorted(missing)[:3]}"
        )
    return model


def _untie(model, state_dict, source):
    """Part weights that differ, which T5 of transformers ties whatever its config says, until it loads a checkpoint."""
    for copy, original in list(model.all_tied_weights_keys.items()):
        if {copy, original} <= state_dict.keys() and not torch.equal(state_dict[copy], state_dict[original]):
            if model.config.model_type.startswith("hft_"):
                raise CheckpointError(f"converting {source}: {copy} differs from {original}, to which it is tied")
            owner, name = copy.rsplit(".", 1)
            setattr(model.get_submodule(owner), name, torch.nn.Parameter(state_dict[copy].clone()))
            del model.all_tied_weights_keys[copy]


def _finish(target, source):
    if source.can_generate():
        target.generation_config = source.generation_config
    return target.train(source.training)


def from_stock(model):
    """Our model with the weights of a stock one.

    Raises:
        CheckpointError: an architecture, head, option or tensor without a counterpart.
    """
    from transformers import AutoConfig

    conversion, name = _by_stock(model.config), type(model).__name__
    if name not in conversion.heads:
        raise CheckpointError(f"no counterpart of the head {name}; known: {', '.join(conversion.heads)}")
    for option, value in _refused(conversion, model.config).items():
        raise CheckpointError(f"{option}={value} has no counterpart in {conversion.our_type}")
    head = conversion.heads[name]
    modeling = importlib.import_module(f"hftoolkit.models.{conversion.module}")
    fields = conversion.our_fields(model.config) | head.get("fields", {})
    fields |= {our: getattr(model.config, stock) for our, stock in head.get("renamed", {}).items()}
    config = AutoConfig.for_model(conversion.our_type, **fields, **_labels(head, model.config))
    stock, result = model.state_dict(), {}
    for copy in conversion.copies:
        stock.pop(copy, None)
    for stock_name, ours, layout in _rows(conversion, head, _layers(config)):
        tensor = stock.pop(stock_name, None)
        if tensor is not None:
            tensor = _to_ours(tensor, layout)
            result.update((our, piece.contiguous()) for our, piece in zip(ours, tensor.chunk(len(ours)), strict=True))
    own = _own_numbers(conversion)
    rest = {name: tensor for name, tensor in stock.items() if name not in own and not DERIVED.search(name)}
    result.update(rest)  # refused by _load
    return _finish(_load(getattr(modeling, head["ours"])(config).to(model.dtype), result, name), model)


def to_stock(model):
    """The stock transformers model with the weights of one of ours.

    Raises:
        CheckpointError: transformers has no such head or option.
    """
    import transformers

    conversion, name = _by_ours(model.config), type(model).__name__
    stock_name = next((stock for stock, head in conversion.heads.items() if head["ours"] == name), None)
    if stock_name is None:
        raise CheckpointError(f"{conversion.model_type} of transformers has no counterpart of {name}")
    head, fields = conversion.heads[stock_name], conversion.stock_fields(model.config)
    for field, value in head.get("fields", {}).items():
        if getattr(model.config, field) != value:
            raise CheckpointError(f"{stock_name} of transformers is {name} with {field}={value!r} only")
    fields |= {stock: getattr(model.config, our) for our, stock in head.get("renamed", {}).items()}
    config = transformers.AutoConfig.for_model(conversion.model_type, **fields, **_labels(head, model.config))
    ours, result = model.state_dict(), {}
    for stock, names, layout in _rows(conversion, head, _layers(model.config)):
        if all(our in ours for our in names):
            tensor = torch.cat([ours.pop(our) for our in names])
            result[stock] = _to_theirs(tensor, layout).contiguous()
    target = getattr(transformers, stock_name)(config).to(model.dtype)
    own = _own_numbers(conversion)
    result = {name: tensor for name, tensor in target.state_dict().items() if name in own} | result
    names = target.state_dict().keys()
    copies = {copy: source for copy, source in conversion.copies.items() if copy in names and source in result}
    result.update((copy, result[source]) for copy, source in copies.items())
    result.update(ours)
    return _finish(_load(target, result, name), model)


def convert_folder(source, destination, to=None):
    """Convert a saved model and its tokenizer; the destination appears whole or not at all.

    Args:
        to: "ours" or "stock"; None is the other side of what `source` is.

    Raises:
        CheckpointError: the source is not a model folder, the destination exists, or no counterpart is known.
    """
    import transformers

    import hftoolkit.models  # noqa: F401  (AutoConfig learns of our types)

    source, destination = Path(source), Path(destination)
    if to != "stock" and elmo.is_published_elmo(source):
        return elmo.convert_published(source, destination)
    if not (source / "config.json").is_file():
        raise CheckpointError(f"{source} is not a model folder: it has no config.json")
    if destination.exists():
        raise CheckpointError(f"{destination} exists; choose another destination")
    config = transformers.AutoConfig.from_pretrained(source)
    architecture = (config.architectures or [""])[0]
    is_ours = config.model_type.startswith("hft_")
    if to is not None and (to == "ours") == is_ours:
        raise CheckpointError(f"{source} holds {config.model_type!r}: it is {to} already")
    conversion = _by_ours(config) if is_ours else _by_stock(config)
    library = importlib.import_module(f"hftoolkit.models.{conversion.module}") if is_ours else transformers
    if not hasattr(library, architecture):
        raise CheckpointError(f"{source}/config.json names the class {architecture!r}, which does not exist")
    model = getattr(library, architecture).from_pretrained(source)
    converted = to_stock(model) if is_ours else from_stock(model)
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    whole = staging / "model"  # with the usual permissions; the temporary folder is for its owner only
    try:
        converted.save_pretrained(whole)
        if any((source / name).is_file() for name in ("tokenizer.json", "vocab.json", "tokenizer_config.json")):
            transformers.AutoTokenizer.from_pretrained(source).save_pretrained(whole)
        os.replace(whole, destination)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return destination
