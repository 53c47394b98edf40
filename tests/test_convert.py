"""Conversion from and to the stock classes, in memory and as folders; what the models compute is tested in models/."""

import json
import os
import stat

import pytest
import torch
import transformers
from transformers import BertConfig, GPT2Config, MarianConfig, OpenAIGPTConfig, T5Config

from hftoolkit import convert
from hftoolkit.convert import convert_folder, from_stock, to_stock
from hftoolkit.errors import CheckpointError
from hftoolkit.models import modeling_bert, modeling_t5, modeling_transformer
from hftoolkit.models.modeling_gpt import (
    HftGptConfig,
    HftGptForCausalLM,
    HftGptForSequenceClassification,
    HftGptForTaskClassification,
    HftGptForTokenClassification,
    HftGptModel,
)

SIZES = dict(vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=24)
LABELS = dict(id2label={0: "sad", 1: "glad", 2: "mad"}, label2id={"sad": 0, "glad": 1, "mad": 2})
GPT2 = SIZES | dict(bos_token_id=1, eos_token_id=2, pad_token_id=0, layer_norm_epsilon=1e-4, resid_pdrop=0.3)
GPT1 = SIZES | dict(pad_token_id=0, layer_norm_epsilon=1e-4, attn_pdrop=0.2)
STOCK = {
    "GPT2Model": (GPT2Config(**GPT2), HftGptModel),
    "GPT2LMHeadModel": (GPT2Config(**GPT2, n_inner=48), HftGptForCausalLM),
    "GPT2ForSequenceClassification": (GPT2Config(**GPT2, **LABELS), HftGptForSequenceClassification),
    "GPT2ForTokenClassification": (
        GPT2Config(**GPT2, **LABELS, classifier_dropout=0.25),
        HftGptForTokenClassification,
    ),
    "GPT2DoubleHeadsModel": (GPT2Config(**GPT2, summary_first_dropout=0.3), HftGptForTaskClassification),
    "OpenAIGPTDoubleHeadsModel": (OpenAIGPTConfig(**GPT1, summary_first_dropout=0.3), HftGptForTaskClassification),
    "OpenAIGPTModel": (OpenAIGPTConfig(**GPT1), HftGptModel),
    "OpenAIGPTLMHeadModel": (OpenAIGPTConfig(**GPT1), HftGptForCausalLM),
    "OpenAIGPTForSequenceClassification": (
        OpenAIGPTConfig(**GPT1, **LABELS, problem_type="single_label_classification"),
        HftGptForSequenceClassification,
    ),
}
BERT = dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
BERT |= dict(layer_norm_eps=1e-4, hidden_dropout_prob=0.3, max_position_embeddings=24, classifier_dropout=0.2)
STOCK |= {
    f"Bert{task}": (
        BertConfig(**BERT | (LABELS if task.endswith(("SequenceClassification", "TokenClassification")) else {})),
        getattr(modeling_bert, f"HftBert{task}"),
    )
    for task in (
        *("Model", "ForPreTraining", "ForMaskedLM", "ForNextSentencePrediction", "ForSequenceClassification"),
        *("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice"),
    )
}
T5 = dict(vocab_size=99, d_model=32, d_kv=6, d_ff=40, num_layers=2, num_decoder_layers=3, num_heads=4)
T5 |= dict(relative_attention_num_buckets=8, relative_attention_max_distance=9, layer_norm_epsilon=1e-4)
T5 |= dict(dropout_rate=0.3, classifier_dropout=0.2, decoder_start_token_id=0)
STOCK |= {
    f"T5{task}": (
        T5Config(**T5, **LABELS if task.endswith("Classification") else {}, feed_forward_proj=activation),
        getattr(modeling_t5, f"HftT5{task}"),
    )
    for task, activation in (
        *(("Model", "relu"), ("EncoderModel", "gated-gelu"), ("ForConditionalGeneration", "relu")),
        ("ForSequenceClassification", "gated-silu"),
    )
}
MARIAN = dict(vocab_size=99, d_model=32, encoder_layers=2, decoder_layers=3, activation_function="swish")
MARIAN |= dict(scale_embedding=True, attention_dropout=0.2, activation_dropout=0.3, decoder_start_token_id=98)
MARIAN |= dict(pad_token_id=98, bos_token_id=3, eos_token_id=0, tie_word_embeddings=True)
MARIAN |= {
    f"{side}_{part}": n for side in ("encoder", "decoder") for part, n in (("attention_heads", 4), ("ffn_dim", 40))
}
STOCK |= {
    "MarianModel": (MarianConfig(**MARIAN), modeling_transformer.HftTransformerModel),
    "MarianMTModel": (MarianConfig(**MARIAN), modeling_transformer.HftTransformerForConditionalGeneration),
}
ALBERT = dict(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
UNTOLD = {  # fields that only one side has, or that name the class
    *("architectures", "auto_map", "model_type", "transformers_version", "dtype", "use_cache", "is_encoder_decoder"),
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
}


def randomised(model):
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:  # not Marian's positions
            parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    for name, buffer in model.named_buffers():
        if name == "final_logits_bias":
            buffer.add_(torch.randn(buffer.shape, generator=generator))
    return model.eval()


def stock(name, **changes):
    config = type(STOCK[name][0])(**STOCK[name][0].to_diff_dict() | changes)
    return randomised(getattr(transformers, name)(config))


def answer(model):
    choices = any(head in type(model).__name__ for head in ("MultipleChoice", "DoubleHeads", "TaskClassification"))
    ids = torch.arange(20).view((1, 2, 10) if choices else (2, 10)) + 5
    inputs = dict(input_ids=ids)
    if type(model).__name__.startswith(("Marian", "HftTransformer")):
        inputs |= dict(decoder_input_ids=ids.flip(1))
    if "T5" in type(model).__name__:
        ids[:, -1] = 1  # the end, which the stock classifier looks for
        writes = not type(model).__name__.endswith(("EncoderModel", "Classification"))
        inputs |= dict(decoder_input_ids=ids.flip(1)) if writes else {}
    with torch.no_grad():
        output = model(**inputs)
    if "mc_logits" in output:  # beside the logits of the language model, which ours does not return
        return output.mc_logits.flatten()
    return torch.cat([value.flatten() for value in output.values() if torch.is_tensor(value)])


def assert_same_state(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def told(config):
    return {key: value for key, value in config.to_dict().items() if key not in UNTOLD}


@pytest.fixture(params=STOCK)
def theirs(request):
    return stock(request.param)


def test_from_stock_and_back_is_exact(theirs):
    ours = from_stock(theirs)
    assert type(ours) is STOCK[type(theirs).__name__][1]
    torch.testing.assert_close(answer(ours), answer(theirs), rtol=1e-4, atol=1e-4)
    back = to_stock(ours)
    assert type(back) is type(theirs)
    assert_same_state(back.state_dict(), theirs.state_dict())
    written_out = dict(n_inner=0, classifier_dropout=0)  # the stock config may leave them to their defaults
    assert told(back.config) | written_out == told(theirs.config) | written_out
    assert torch.equal(answer(back), answer(theirs))


def test_to_stock_and_back_is_exact(theirs):
    ours = from_stock(theirs)
    again = from_stock(to_stock(ours))
    assert_same_state(again.state_dict(), ours.state_dict())
    assert again.config.to_dict() == ours.config.to_dict()


def test_settings_travel():
    ours = from_stock(stock("GPT2ForTokenClassification")).config
    assert (ours.norm_order, ours.layer_norm_eps, ours.hidden_dropout_prob) == ("pre", 1e-4, 0.3)
    assert (ours.classifier_dropout_prob, ours.eos_token_id, ours.pad_token_id) == (0.25, 2, 0)
    assert ours.id2label == {0: "sad", 1: "glad", 2: "mad"}
    assert from_stock(stock("GPT2LMHeadModel")).config.intermediate_size == 48
    ours = from_stock(stock("OpenAIGPTForSequenceClassification")).config
    assert (ours.norm_order, ours.hidden_act, ours.attention_probs_dropout_prob) == ("post", "gelu_new", 0.2)
    assert ours.problem_type == "single_label_classification"


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "OpenAIGPTLMHeadModel"])
def test_tied_weights_stay_tied_and_untied_ones_apart(name):
    ours = from_stock(stock(name))
    assert ours.lm_head.weight.data_ptr() == ours.model.embed_tokens.weight.data_ptr()
    theirs = stock(name, tie_word_embeddings=False)
    assert not torch.equal(theirs.lm_head.weight, theirs.get_input_embeddings().weight)
    ours = from_stock(theirs)
    assert torch.equal(ours.model.embed_tokens.weight, theirs.get_input_embeddings().weight)
    assert torch.equal(ours.lm_head.weight, theirs.lm_head.weight)
    assert_same_state(to_stock(ours).state_dict(), theirs.state_dict())


def test_dtype_mode_and_generation_settings_are_kept():
    theirs = stock("GPT2LMHeadModel").bfloat16().train()
    theirs.generation_config.max_new_tokens = 7
    ours = from_stock(theirs)
    assert ours.dtype == torch.bfloat16
    assert ours.training
    assert ours.generation_config.max_new_tokens == 7
    assert not to_stock(ours.eval()).training


def test_nothing_is_shared_with_the_source():
    theirs = stock("GPT2LMHeadModel")
    before, ours = answer(theirs), from_stock(theirs)
    back = to_stock(ours)
    for parameter in ours.parameters():
        parameter.data.zero_()
    assert torch.equal(answer(theirs), before)
    assert torch.equal(answer(back), before)


def test_causal_masks_of_old_checkpoints_are_left_out():
    theirs = stock("GPT2LMHeadModel")
    theirs.transformer.h[0].attn.register_buffer("bias", torch.ones(1, 1, 24, 24).bool())
    theirs.transformer.h[0].attn.register_buffer("masked_bias", torch.tensor(-1e4))
    torch.testing.assert_close(answer(from_stock(theirs)), answer(theirs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("scale_attn_by_inverse_layer_idx", True),
        ("reorder_and_upcast_attn", True),
        ("scale_attn_weights", False),
        ("add_cross_attention", True),
    ],
)
def test_options_of_the_stock_class_only_are_refused(option, value):
    with pytest.raises(CheckpointError, match=f"{option}={value} has no counterpart"):
        from_stock(stock("GPT2LMHeadModel", **{option: value}))


def test_an_unknown_architecture_or_head_is_refused():
    with pytest.raises(CheckpointError, match="'albert' .*known: gpt2, openai-gpt, bert, t5"):
        from_stock(transformers.AlbertModel(transformers.AlbertConfig(**ALBERT)))
    with pytest.raises(CheckpointError, match="GPT2ForQuestionAnswering; known: GPT2Model, "):
        from_stock(transformers.GPT2ForQuestionAnswering(STOCK["GPT2Model"][0]))
    with pytest.raises(CheckpointError, match="BertLMHeadModel; known: BertModel, "):
        from_stock(transformers.BertLMHeadModel(BertConfig(**BERT, is_decoder=True)))
    with pytest.raises(CheckpointError, match="'albert' has no counterpart in transformers"):
        to_stock(transformers.AlbertModel(transformers.AlbertConfig(**ALBERT)))
    ours = HftGptForTokenClassification(small(norm_order="post"))
    with pytest.raises(CheckpointError, match="openai-gpt .*no counterpart of HftGptForTokenClassification"):
        to_stock(ours)


def small(**changes):
    sizes = dict(vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=24)
    return HftGptConfig(**sizes | changes)


@pytest.mark.parametrize("changes", [dict(hidden_act="gelu"), dict(intermediate_size=48)], ids=str)
def test_what_openai_gpt_cannot_express_is_refused(changes):
    ours = HftGptForCausalLM(small(norm_order="post", **changes))
    ((name, value),) = changes.items()
    with pytest.raises(CheckpointError, match=f"{name}='?{value}"):
        to_stock(ours)
    to_stock(HftGptForCausalLM(small(norm_order="pre", **changes)))


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "swish"])
def test_activations_of_openai_gpt(name):
    theirs = stock("OpenAIGPTLMHeadModel", afn=name)
    torch.testing.assert_close(answer(from_stock(theirs)), answer(theirs), rtol=1e-4, atol=1e-4)


def test_a_tensor_without_a_counterpart_is_refused_and_so_is_a_missing_one():
    theirs = stock("GPT2LMHeadModel")
    theirs.transformer.h[1].register_parameter("gate", torch.nn.Parameter(torch.ones(3)))
    with pytest.raises(CheckpointError, match=r"without a counterpart \['transformer.h.1.gate'\]"):
        from_stock(theirs)
    theirs = stock("GPT2LMHeadModel")
    del theirs.transformer.h[1].ln_2.bias
    theirs.transformer.h[1].ln_2.bias = None
    with pytest.raises(CheckpointError, match=r"not found \['model.layers.1.mlp_norm.bias'\]"):
        from_stock(theirs)


def save_tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "lamp": 1, "red": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "OpenAIGPTForSequenceClassification"])
def test_folders_convert_both_ways_with_their_tokenizer(name, tmp_path):
    theirs = stock(name)
    theirs.save_pretrained(tmp_path / "stock")
    save_tokenizer(tmp_path / "stock")
    assert convert_folder(tmp_path / "stock", tmp_path / "deep/ours") == tmp_path / "deep/ours"
    auto = transformers.AutoModelForCausalLM if "LMHead" in name else transformers.AutoModelForSequenceClassification
    ours = auto.from_pretrained(tmp_path / "deep/ours")
    assert type(ours) is STOCK[name][1]
    assert (tmp_path / "deep/ours/modeling_gpt.py").is_file()
    torch.testing.assert_close(answer(ours), answer(theirs), rtol=1e-4, atol=1e-4)
    convert_folder(tmp_path / "deep/ours", tmp_path / "back", to="stock")
    back = auto.from_pretrained(tmp_path / "back")
    assert_same_state(back.state_dict(), theirs.state_dict())
    assert not list((tmp_path / "back").glob("*.py"))
    assert "auto_map" not in json.loads((tmp_path / "back/config.json").read_text())
    for folder in ("deep/ours", "back"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / folder)
        assert tokenizer("red lamp")["input_ids"] == [2, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "deep", "stock"]


def test_a_converted_folder_is_as_readable_as_any_other(tmp_path):
    stock("GPT2Model").save_pretrained(tmp_path / "stock")
    convert_folder(tmp_path / "stock", tmp_path / "ours")
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("stock", "ours")]
    assert modes[0] == modes[1]


def test_folders_that_cannot_be_converted_are_refused(tmp_path):
    stock("GPT2LMHeadModel").save_pretrained(tmp_path / "stock")
    (tmp_path / "taken").mkdir()
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="taken exists; choose another"):
        convert_folder(tmp_path / "stock", tmp_path / "taken")
    with pytest.raises(CheckpointError, match="empty is not a model folder: it has no config.json"):
        convert_folder(tmp_path / "empty", tmp_path / "new")
    with pytest.raises(CheckpointError, match="'gpt2': it is stock already"):
        convert_folder(tmp_path / "stock", tmp_path / "new", to="stock")
    config = json.loads((tmp_path / "stock/config.json").read_text())
    (tmp_path / "stock/config.json").write_text(json.dumps(config | dict(architectures=["GPT2Poet"])))
    with pytest.raises(CheckpointError, match="names the class 'GPT2Poet', which does not exist"):
        convert_folder(tmp_path / "stock", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "stock", "taken"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "Ctrl-C"]
)
def test_a_failure_leaves_nothing_behind(error, tmp_path, monkeypatch):
    """The weights are half written when it happens."""
    stock("GPT2LMHeadModel").save_pretrained(tmp_path / "stock")

    def fails(self, folder, **kwargs):
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(HftGptForCausalLM, "save_pretrained", fails)
    with pytest.raises(type(error)):
        convert_folder(tmp_path / "stock", tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["stock"]
    monkeypatch.undo()
    convert_folder(tmp_path / "stock", tmp_path / "ours")


def test_the_table_of_names_covers_every_tensor_once():
    for conversion in convert.CONVERSIONS:
        for head in conversion.heads.values():
            rows = list(convert._rows(conversion, head, layers=2))
            names = [name for _, ours, _ in rows for name in ours]
            assert len(names) == len(set(names))
            assert len(rows) == len({stock for stock, _, _ in rows})


def test_only_the_head_for_choices_has_a_counterpart():
    model = HftGptForTaskClassification(
        HftGptConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, task_form="similarity")
    )
    with pytest.raises(CheckpointError, match="GPT2DoubleHeadsModel .* with task_form='choice' only"):
        to_stock(model)
