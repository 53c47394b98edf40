"""What must be settled before supervised fine-tuning begins: the kind of model, the chat template, what is scored."""

from pathlib import Path

from transformers import PretrainedConfig

from hftoolkit.errors import CheckpointError, DataError
from hftoolkit.tokenization.chat import CHAT_TEMPLATE, TURN_START

PREFIX_MODELS = ("t5", "mt5", "umt5", "hft_t5")  # their output layer reads scaled states, also without an encoder


def require_decoder(model_args):
    """Refuse an encoder-decoder, whose place is another recipe, before it is loaded.

    Raises:
        CheckpointError: with what to do.
    """
    source, remedy = model_args.model_name_or_path, "fine-tune it with recipes/finetune_t5.py"
    if source is None:
        if model_args.architecture != "gpt":
            raise CheckpointError(
                f"a new {model_args.architecture} is no causal language model: take gpt, or {remedy}"
            )
        return
    try:
        config, _ = PretrainedConfig.get_config_dict(source, revision=model_args.revision)
    except OSError:
        return  # load_model says what is wrong
    if config.get("is_encoder_decoder") or config.get("model_type") in PREFIX_MODELS:
        raise CheckpointError(
            f"{source} is of type {config.get('model_type')!r}, which reads a text and writes another: {remedy}"
        )


def prepare_for_chat(tokenizer):
    """Give a tokenizer that has no chat template the one of hftoolkit.tokenization.chat; changed in place.

    Returns:
        Ids of the tokens that are new in its vocabulary, and that the model needs embeddings for.
    """
    if tokenizer.chat_template is not None:
        return []
    tokenizer.chat_template = CHAT_TEMPLATE
    before = len(tokenizer)
    tokenizer.add_special_tokens({"extra_special_tokens": [TURN_START]}, replace_extra_special_tokens=False)
    return list(range(before, len(tokenizer)))


def check_settings(training_args, tokenizer, conversational):
    """Set what follows from the data and the settings, and refuse what cannot be.

    Conversations are scored on the assistant's tokens only, unless assistant_only_loss was given; the tokenizer gets the
    chat template that was given.

    Raises:
        DataError: no end token, an option that needs conversations, or a template that cannot be read.
    """
    if training_args.eos_token is None and tokenizer.eos_token is None:
        raise DataError(
            "the tokenizer has no eos_token, by which a model says that its answer is over: give --eos_token"
        )
    if training_args.chat_template_path is not None:
        tokenizer.chat_template = _read_template(training_args.chat_template_path, tokenizer)
    given = vars(training_args).get("given_arguments") or {}
    if training_args.assistant_only_loss and not conversational:
        raise DataError(
            "assistant_only_loss needs conversations, and these are texts: leave it out, or give --chat true"
        )
    if conversational and "assistant_only_loss" not in given:
        training_args.assistant_only_loss = True


def _read_template(path, tokenizer):
    """The text of a file with a chat template, tried on a short conversation."""
    import jinja2

    if not path.endswith((".jinja", ".j2")) or not Path(path).is_file():
        raise DataError(f"chat_template_path: there is no file {path} with the suffix .jinja or .j2")
    text = Path(path).read_text(encoding="utf-8")
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    try:
        tokenizer.apply_chat_template(turns, chat_template=text, tokenize=False)
    except jinja2.TemplateError as error:
        raise DataError(f"{path}: the chat template is wrong: {error}") from error
    return text
