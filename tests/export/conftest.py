"""The loopback Hub, a client of it in this process, and a saved toy model."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]  # toy, hub_server


@pytest.fixture
def hub():
    from hub_server import HubServer

    with HubServer() as server:
        yield server


@pytest.fixture
def client(hub, monkeypatch, tmp_path):
    """Make huggingface_hub in this process alice's client of `hub`; its waits between retries are skipped."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http, close_session

    for key, value in hub.environment(tmp_path / "home").items():
        monkeypatch.setenv(key, value)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    for key, value in {"ENDPOINT": hub.url, "HUGGINGFACE_CO_URL_TEMPLATE": template}.items():
        monkeypatch.setattr(constants, key, value)
    for key, value in {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
        monkeypatch.setattr(constants, key, value)
    waits = []
    monkeypatch.setattr(_http.time, "sleep", waits.append)
    yield waits
    close_session()


def save_toy(folder, head="ToyForSequenceClassification", **config):
    """A toy model with weights from N(0, 0.3), saved with its code and a tokenizer."""
    import torch
    from toy import modeling_toy

    modeling_toy.ToyConfig.register_for_auto_class()
    for auto, path in modeling_toy.AUTO_MAP.items():
        if auto != "AutoConfig":
            getattr(modeling_toy, path.split(".")[1]).register_for_auto_class(auto)
    model = getattr(modeling_toy, head)(modeling_toy.ToyConfig(**config)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    model.save_pretrained(folder)
    save_words(folder)


def save_words(folder):
    """A tokenizer of whole words: "lamp" is 1, "red" is 2."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "lamp": 1, "red": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)


@pytest.fixture
def toy_folder(tmp_path):
    save_toy(tmp_path / "toy")
    return tmp_path / "toy"


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32}


def save_small(folder, config, model_class, card=None):
    """A model with weights from N(0, 0.3), saved with tokenizer and card."""
    import torch

    from hftoolkit.cards import write_card

    model = model_class(config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    model.save_pretrained(folder)
    save_words(folder)
    if card is not None:
        write_card(folder, card, {"name": card, "model_class": model_class.__name__, "config": SIZES})
    return folder


@pytest.fixture(scope="session")
def gpt_folder(tmp_path_factory):
    """A small GPT, saved as a language model; do not change it."""
    from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptForCausalLM

    config = HftGptConfig(vocab_size=64, eos_token_id=0, pad_token_id=0, **SIZES)
    return save_small(tmp_path_factory.mktemp("gpt"), config, HftGptForCausalLM, "gpt")


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    """A small BERT, saved as it was pretrained; do not change it."""
    from hftoolkit.models.modeling_bert import HftBertConfig, HftBertForPreTraining

    config = HftBertConfig(vocab_size=64, num_labels=3, **SIZES)
    return save_small(tmp_path_factory.mktemp("bert"), config, HftBertForPreTraining, "bert")


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory):
    """A small T5, saved as it was pretrained; do not change it."""
    from hftoolkit.models.modeling_t5 import HftT5Config, HftT5ForConditionalGeneration

    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
        "intermediate_size": 32,
    }
    config = HftT5Config(vocab_size=64, num_labels=3, **sizes)
    return save_small(tmp_path_factory.mktemp("t5"), config, HftT5ForConditionalGeneration)


@pytest.fixture(scope="session")
def transformer_folder(tmp_path_factory):
    """A small Transformer, saved as it was trained; do not change it."""
    from hftoolkit.models.modeling_transformer import HftTransformerConfig, HftTransformerForConditionalGeneration

    config = HftTransformerConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    folder = tmp_path_factory.mktemp("transformer")
    return save_small(folder, config, HftTransformerForConditionalGeneration, "transformer")


@pytest.fixture(scope="session")
def seq2seq_folder(tmp_path_factory):
    """A small recurrent encoder-decoder, saved as it was trained; do not change it."""
    from hftoolkit.models.modeling_seq2seq import HftSeq2SeqConfig, HftSeq2SeqForConditionalGeneration

    config = HftSeq2SeqConfig(vocab_size=64, hidden_size=16, attention_type="additive", num_decoder_layers=2)
    return save_small(tmp_path_factory.mktemp("seq2seq"), config, HftSeq2SeqForConditionalGeneration)


CLASSIFIERS = {
    "rnn": {"embedding_size": 12, "hidden_size": 16, "projection_size": 8, "pooling": "attention"},
    "bow": {},
    "dan": {"hidden_size": 16},
    "textcnn": {"embedding_size": 12, "num_filters": 4},
}


@pytest.fixture
def classifier_folder(request, tmp_path):
    """A small classifier of the architecture that is asked for, and its heads."""
    import importlib

    module = importlib.import_module(f"hftoolkit.models.modeling_{request.param}")
    heads = {auto: getattr(module, path.split(".")[1]) for auto, path in module.AUTO_MAP.items()}
    config = heads.pop("AutoConfig")(vocab_size=64, num_labels=3, **CLASSIFIERS[request.param])
    offered = [auto for auto in config.auto_map if auto in heads]
    return save_small(tmp_path, config, heads["AutoModelForSequenceClassification"]), offered
