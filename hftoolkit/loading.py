"""Tokenizer and model from ModelArguments: from the Hub, from a folder, or new."""

import inspect
from pathlib import Path

from hftoolkit.errors import CheckpointError, DataError
from hftoolkit.hub_errors import loading_error
from hftoolkit.remote_code import check_remote_code
from hftoolkit.safe_loading import check_finite_weights, check_model_folder, check_tokenizer_folder
from hftoolkit.tokenization import KINDS, train_tokenizer


def load_tokenizer(model_args, texts=None, max_length=None):
    """The tokenizer that `model_args.tokenizer` names, or that of the model to start from.

    Args:
        texts: training texts, read when `model_args.tokenizer` is a kind such as byte_bpe, which is trained here.
        max_length: tokens the model reads at once; kept in the tokenizer.

    Raises:
        DataError: no tokenizer is named, or one has to be trained without texts.
        CheckpointError: the folder holds no tokenizer.
        HubError: the Hub does not have it, or cannot be reached.
    """
    source = model_args.tokenizer or model_args.model_name_or_path
    if source is None:
        raise DataError(f"name a --tokenizer: a folder, a Hub id, or a kind to train ({', '.join(KINDS)})")
    if source in KINDS:
        if texts is None:
            raise DataError(f"the tokenizer {source!r} has to be trained, and there are no training texts")
        tokenizer = train_tokenizer(source, texts, vocab_size=model_args.tokenizer_vocab_size)
    else:
        tokenizer = _from_pretrained("AutoTokenizer", source, model_args)
    if max_length is not None:
        tokenizer.model_max_length = max_length
    return tokenizer


def load_model(auto_class, model_args, tokenizer=None, **config_fields):
    """The model to train.

    Args:
        auto_class: AutoModelForCausalLM or another Auto class.
        tokenizer: gives a new model its vocabulary size and special ids, and is checked against a loaded one.
        config_fields: fields of a new model's config beside model_args.model_config, such as num_labels.

    Raises:
        CheckpointError: an unknown or impossible config field; a damaged, altered or foreign checkpoint.
        DataError: the tokenizer has more tokens than the model.
        HubError: the Hub does not have it, or cannot be reached.
    """
    import torch

    options = {"dtype": getattr(torch, model_args.dtype)}
    if model_args.attn_implementation is not None:
        options["attn_implementation"] = model_args.attn_implementation
    if model_args.model_name_or_path is None:
        model = auto_class.from_config(new_config(model_args, tokenizer, **config_fields), **options)
    else:
        model = _from_pretrained(auto_class.__name__, model_args.model_name_or_path, model_args, **options)
    size = model.get_input_embeddings().num_embeddings
    if tokenizer is not None and len(tokenizer) > size:
        raise DataError(
            f"the tokenizer has {len(tokenizer)} tokens, but the model's vocab_size is {size}: use the tokenizer the "
            "model was made with, or call model.resize_token_embeddings(len(tokenizer))"
        )
    return model


def new_config(model_args, tokenizer=None, **fields):
    """Config of a new model; every key must be a field of the architecture.

    Raises:
        CheckpointError: an unknown architecture, field or value.
    """
    from transformers import AutoConfig

    from hftoolkit.models import ARCHITECTURES

    if model_args.architecture not in ARCHITECTURES:
        raise CheckpointError(f"no architecture {model_args.architecture!r}; known: {', '.join(ARCHITECTURES)}")
    model_type = f"hft_{model_args.architecture}"
    if tokenizer is not None:
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        fields = {"vocab_size": len(tokenizer)} | ids | fields
    known = inspect.signature(type(AutoConfig.for_model(model_type)).__init__).parameters
    unknown = [key for key in model_args.model_config if key not in known and key not in ("num_labels", "id2label")]
    if unknown:
        raise CheckpointError(f"{model_type} has no config key {unknown}; its keys: {', '.join(list(known)[1:-1])}")
    try:
        return AutoConfig.for_model(model_type, **(fields | model_args.model_config))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"model_config of {model_type}: {error}") from error


def _from_pretrained(auto_class, source, model_args, **options):
    """Load from a folder, checked first, or from the Hub; library errors become one line each."""
    import transformers

    local = Path(source).expanduser()
    if local.is_dir():
        source, is_tokenizer = str(local), auto_class == "AutoTokenizer"
        (check_tokenizer_folder if is_tokenizer else check_model_folder)(local)
        if not is_tokenizer:
            check_finite_weights(local)
    pinned = {"revision": model_args.revision}
    try:
        config, _ = transformers.PretrainedConfig.get_config_dict(source, **pinned)
        check_remote_code(config, source, trust_remote_code=model_args.trust_remote_code, **pinned)
    except OSError as error:  # a tokenizer's folder needs no config.json
        if not local.is_dir():
            raise loading_error(error, source) from error
    options.update(pinned, trust_remote_code=model_args.trust_remote_code)
    try:
        return getattr(transformers, auto_class).from_pretrained(source, **options)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and not local.is_dir():
            raise loading_error(error, source) from error
        raise CheckpointError(f"{source} cannot be loaded as {auto_class}: {str(error).splitlines()[0]}") from error
