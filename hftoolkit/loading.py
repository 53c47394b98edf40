"""Tokenizer and model from ModelArguments: from the Hub, from a folder, or new."""

import inspect
from pathlib import Path

from hftoolkit.errors import CheckpointError, DataError
from hftoolkit.hub_errors import loading_error
from hftoolkit.remote_code import check_remote_code
from hftoolkit.safe_loading import check_finite_weights, check_model_folder, check_tokenizer_folder
from hftoolkit.tokenization import KINDS, train_tokenizer

HEAD_FIELDS = (  # a loaded model's config takes these too
    *("num_labels", "id2label", "label2id", "problem_type"),
    *("task_form", "auxiliary_loss_weight"),
)
FINE_TUNED = ("ForSequenceClassification", "ForTokenClassification", "ForTaskClassification")  # one output per class


def load_tokenizer(model_args, texts=None, max_length=None, min_count=1):
    """The tokenizer that `model_args.tokenizer` names, or that of the model to start from.

    Args:
        texts: training texts, read when `model_args.tokenizer` is a kind such as byte_bpe, which is trained here.
        max_length: tokens the model reads at once; kept in the tokenizer.
        min_count: what occurs less often in the texts is left out of a vocabulary that is trained here.

    Raises:
        DataError: no tokenizer is named, or one has to be trained without texts; a min_count where it says nothing, or
            one that leaves fewer than two words.
        CheckpointError: the folder holds no tokenizer.
        HubError: the Hub does not have it, or cannot be reached.
    """
    source = model_args.tokenizer or model_args.model_name_or_path
    if source is None:
        raise DataError(f"name a --tokenizer: a folder, a Hub id, or a kind to train ({', '.join(KINDS)})")
    if min_count != 1 and (source not in KINDS or source == "byte"):
        why = "bytes are all kept" if source == "byte" else "it has its vocabulary"
        raise DataError(f"min_count {min_count} does not apply to the tokenizer {source!r}, {why}: set min_count to 1")
    if source in KINDS:
        if texts is None:
            raise DataError(f"the tokenizer {source!r} has to be trained, and there are no training texts")
        least = {} if min_count == 1 else {"min_frequency": min_count}
        try:
            tokenizer = train_tokenizer(source, texts, vocab_size=model_args.tokenizer_vocab_size, **least)
        except DataError as error:
            if not least:
                raise
            raise DataError(str(error).replace("min_frequency", "min_count")) from error  # as it is called here
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
        config_fields: fields of a new model's config beside model_args.model_config; of them HEAD_FIELDS, such as
            num_labels, are also set in a loaded one. A head of another size is then made new, with a warning, unless
            it was fine-tuned. max_position_embeddings is the length that a loaded model must be able to read.

    Raises:
        CheckpointError: an unknown or impossible config field; a damaged, altered or foreign checkpoint; one that was
            fine-tuned for another number of classes.
        DataError: the tokenizer has more tokens than the model, or a loaded model cannot read the length asked for.
        HubError: the Hub does not have it, or cannot be reached.
    """
    import torch

    options = {"dtype": getattr(torch, model_args.dtype)}
    if model_args.attn_implementation is not None:
        options["attn_implementation"] = model_args.attn_implementation
    if model_args.model_name_or_path is None:
        config = new_config(model_args, tokenizer, **config_fields)
        try:
            model = auto_class.from_config(config, **options)
        except ValueError as error:  # what the config allows, but this head does not
            raise CheckpointError(f"model_config of {config.model_type}: {error}") from error
    else:
        head = {key: value for key, value in config_fields.items() if key in HEAD_FIELDS}
        model = _pretrained_model(auto_class, model_args, options, head)
        wanted, limit = (
            fields.get("max_position_embeddings", 0) for fields in (config_fields, model.config.to_dict())
        )
        if wanted > limit > 0:
            raise DataError(
                f"max_length is {wanted}, but {model_args.model_name_or_path} reads at most {limit} tokens"
            )
    size = model.get_input_embeddings().num_embeddings
    if tokenizer is not None and len(tokenizer) > size:
        raise DataError(
            f"the tokenizer has {len(tokenizer)} tokens, but the model's vocab_size is {size}: use the tokenizer the "
            "model was made with, or call model.resize_token_embeddings(len(tokenizer))"
        )
    return model


def grow_embeddings(model, tokenizer):
    """Give a model a row for every token that its tokenizer has; new rows are drawn as the config says."""
    import torch

    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        with torch.random.fork_rng():  # so that what comes after does not depend on whether there were new tokens
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id


def require_model_type(model_args, *model_types):
    """Refuse a checkpoint of another architecture before it is loaded.

    Raises:
        CheckpointError: with what to do.
    """
    from transformers import PretrainedConfig

    source = model_args.model_name_or_path
    if source is None:
        found, source = f"hft_{model_args.architecture}", "the new model"
    else:
        try:
            config, _ = PretrainedConfig.get_config_dict(source, revision=model_args.revision)
        except OSError:
            return  # load_model says what is wrong
        found = config.get("model_type")
    if found not in model_types:
        convert = found in ("gpt2", "openai-gpt")
        remedy = f"; convert it first: hftoolkit convert {source} FOLDER" if convert else ""
        raise CheckpointError(
            f"{source} is of type {found!r}, but this recipe takes {' or '.join(model_types)}{remedy}"
        )


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
    if missing := {"max_position_embeddings", "embedding_size"} - known.keys():  # it has no such limit or vectors
        fields = {key: value for key, value in fields.items() if key not in missing}
    unknown = [key for key in model_args.model_config if key not in known and key not in ("num_labels", "id2label")]
    if unknown:
        raise CheckpointError(f"{model_type} has no config key {unknown}; its keys: {', '.join(list(known)[1:-1])}")
    try:
        return AutoConfig.for_model(model_type, **(fields | model_args.model_config))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"model_config of {model_type}: {error}") from error


def _pretrained_model(auto_class, model_args, options, head):
    """Load a checkpoint; where `head` gives the size of a head, only a head may differ from the checkpoint."""
    source = model_args.model_name_or_path
    if "num_labels" not in head:
        return _from_pretrained(auto_class.__name__, source, model_args, **options)
    options |= {"ignore_mismatched_sizes": True, "output_loading_info": True}
    model, report = _from_pretrained(auto_class.__name__, source, model_args, **options, **head)
    for name, *shapes in report["mismatched_keys"]:
        if name.startswith(f"{model.base_model_prefix}."):
            theirs, ours = map(tuple, shapes)
            raise CheckpointError(f"{source}: {name} is {theirs}, but its config.json says {ours}")
    return model


def _refuse_other_classes(config, source, num_labels):
    """Refuse a checkpoint that was fine-tuned for another number of classes."""
    fine_tuned = [name for name in config.get("architectures") or [] if name.endswith(FINE_TUNED)]
    classes = len(config.get("id2label") or "") or config.get("num_labels", 2)  # 2 is what transformers leaves out
    if fine_tuned and classes != num_labels:
        raise CheckpointError(
            f"{source} is a {fine_tuned[0]} with {classes} classes, but this task has {num_labels}: start from the "
            "checkpoint that it was fine-tuned from, or drop its head: "
            f"AutoModel.from_pretrained({source!r}).save_pretrained(FOLDER)"
        )


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
    if "num_labels" in options:
        _refuse_other_classes(config, source, options["num_labels"])
    options.update(pinned, trust_remote_code=model_args.trust_remote_code)
    try:
        return getattr(transformers, auto_class).from_pretrained(source, **options)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and not local.is_dir():
            raise loading_error(error, source) from error
        raise CheckpointError(f"{source} cannot be loaded as {auto_class}: {str(error).splitlines()[0]}") from error
