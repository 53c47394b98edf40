"""Full fine-tuning, a frozen encoder, LoRA, and learning rates that fall from layer to layer."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from hftoolkit.arguments import AdaptationArguments
from hftoolkit.errors import DataError
from hftoolkit.run import run_training
from hftoolkit.training.adaptation import (
    adapt,
    layer_decay_groups,
    layer_decay_optimizer,
    merged_state_dict,
    tuning_optimizer,
)
from tests.training.tiny_run import At

SIZES = dict(vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)


def stock_bert():
    return BertForSequenceClassification(BertConfig(**SIZES, num_labels=3))


def stock_distilbert():
    sizes = dict(vocab_size=20, dim=16, hidden_dim=16, n_layers=2, n_heads=2)
    return DistilBertForSequenceClassification(DistilBertConfig(**sizes, num_labels=3))


def stock_gpt2():
    sizes = dict(vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=16, pad_token_id=0)
    return GPT2ForSequenceClassification(GPT2Config(**sizes, num_labels=3))


def our_bert():
    from hftoolkit.models.modeling_bert import HftBertConfig, HftBertForSequenceClassification

    return HftBertForSequenceClassification(HftBertConfig(**SIZES, max_position_embeddings=16, num_labels=3))


def our_gpt():
    from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptForSequenceClassification

    sizes = dict(vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=16)
    return HftGptForSequenceClassification(HftGptConfig(**sizes, pad_token_id=0, num_labels=3))


MAKERS = [stock_bert, stock_distilbert, stock_gpt2, our_bert, our_gpt]
HEADS = {  # parameters of the head, by the beginning of their names
    stock_bert: ("classifier.", "bert.pooler."),
    stock_distilbert: ("classifier.", "pre_classifier."),
    stock_gpt2: ("score.",),
    our_bert: ("score.", "model.pooler."),
    our_gpt: ("score.",),
}


def made(make, seed=0):
    torch.manual_seed(seed)
    return make()


def rows(count=24, length=6):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 20, (count, length), generator=generator)
    return [{"input_ids": row, "labels": row[0] % 3} for row in tokens]


def trainer(folder, model, layer_decay=1.0, callbacks=(), **changes):
    """Ten steps of four rows; dropout is on, so that the state of the random generators matters."""
    options = dict(per_device_train_batch_size=4, max_steps=10, learning_rate=1e-2, weight_decay=0.1, save_steps=4)
    options |= dict(logging_steps=5, use_cpu=True, disable_tqdm=True, report_to="none", seed=1)
    args = TrainingArguments(str(folder), **options | changes)
    optimizers = (layer_decay_optimizer(model, args, layer_decay), None)
    return Trainer(model, args, train_dataset=rows(), callbacks=list(callbacks), optimizers=optimizers)


def changed(before, model):
    return {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}


def copy_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("make", MAKERS)
def test_frozen_trains_the_head_only(make, tmp_path):
    model = adapt(made(make), AdaptationArguments("frozen"))
    before = copy_of(model)
    trainer(tmp_path, model, max_steps=1, save_strategy="no").train()
    expected = {name for name, _ in model.named_parameters() if name.startswith(HEADS[make])}
    assert changed(before, model) == expected and len(expected) < len(before) / 2


def test_full_trains_everything(tmp_path):
    model = adapt(made(stock_bert), AdaptationArguments("full"))
    before = copy_of(model)
    trainer(tmp_path, model, max_steps=1, save_strategy="no").train()
    assert changed(before, model) == {name for name, _ in model.named_parameters()}


def test_what_is_frozen_has_no_dropout():
    """Also right after Trainer's model.train(); the head's own dropout stays."""
    model = adapt(made(stock_bert), AdaptationArguments("frozen"))
    ids = rows(1)[0]["input_ids"][None]
    model.train()
    first, second = (model.bert(ids).last_hidden_state for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(model(ids).logits, model(ids).logits)
    full = made(stock_bert).train()
    assert not torch.equal(full.bert(ids).last_hidden_state, full.bert(ids).last_hidden_state)


def test_a_model_without_head_cannot_be_frozen():
    with pytest.raises(ValueError, match="BertModel has no head"):
        adapt(made(stock_bert).bert, AdaptationArguments("frozen"))


# LoRA

LORA = AdaptationArguments("lora", lora_rank=2, lora_alpha=8, lora_dropout=0.1)


@pytest.mark.parametrize("make", MAKERS)
def test_lora_trains_updates_and_head(make, tmp_path):
    plain = made(make)
    names = {name for name, _ in plain.named_parameters()}
    model = adapt(plain, LORA)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    head = {name.split("base_model.model.")[1].replace("modules_to_save.default.", "") for name in trainable}
    assert {name for name in head if ".lora_" not in name} == {n for n in names if n.startswith(HEADS[make])}
    linear = 4 if make is stock_gpt2 else 6  # GPT-2 has query, key and value in one
    assert sum(".lora_A." in name for name in trainable) == 2 * linear


@pytest.mark.parametrize("make", MAKERS)
def test_merged_weights_are_the_models(make):
    model = adapt(made(make), LORA).eval()
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.3)
    merged = made(make, seed=1).eval()
    merged.load_state_dict(merged_state_dict(model))
    ids = torch.stack([row["input_ids"] for row in rows(4)])
    torch.testing.assert_close(merged(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(merged(ids).logits, made(make).eval()(ids).logits, atol=1e-2)


def finished(folder, make=our_bert, **options):
    return run_training(trainer(folder, adapt(made(make), LORA), **options))


@pytest.mark.parametrize("make", [stock_bert, our_bert])
def test_a_finished_run_holds_the_merged_model_and_the_adapter(make, tmp_path, monkeypatch):
    """It loads by its Auto class alone; the adapter on the model the run started from gives the same numbers."""
    from peft import PeftModel

    model = adapt(made(make), LORA)
    run_training(trainer(tmp_path, model), card="gpt")
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "adapter"} <= names and "adapter_model.safetensors" not in names
    assert {path.name for path in (tmp_path / "adapter").iterdir()} >= {"adapter_model.safetensors", "README.md"}
    assert not any("lora" in name for name in load_file(tmp_path / "model.safetensors"))
    ids = torch.stack([row["input_ids"] for row in rows(4)])
    with torch.no_grad():
        expected = model.eval()(ids).logits
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
        again = PeftModel.from_pretrained(made(make), tmp_path / "adapter").eval()
        torch.testing.assert_close(loaded(ids).logits, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(again(ids).logits, expected, rtol=1e-5, atol=1e-5)
    assert type(loaded) is type(made(make))
    card = (tmp_path / "README.md").read_text()
    count = sum(p.numel() for p in loaded.parameters())
    assert f"{count:,} parameters" in card and "PeftModel" not in card


def weights(folder):
    paths = [folder / "model.safetensors", folder / "adapter/adapter_model.safetensors"]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def stop():
    raise KeyboardInterrupt


def test_an_interrupted_lora_run_ends_with_the_same_weights(tmp_path):
    finished(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        finished(tmp_path / "broken", callbacks=[At(6, stop)])
    assert (tmp_path / "broken/checkpoint-4/adapter_model.safetensors").is_file()
    assert json.loads((tmp_path / "broken/run.json").read_text())["status"] != "done"
    finished(tmp_path / "broken")
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")


# layer-wise learning-rate decay


@pytest.mark.parametrize("make", MAKERS)
def test_rates_fall_from_layer_to_layer(make):
    """Two layers, decay 0.5: the head 1, the layers 1/2 and 1/4, the embeddings 1/8."""
    model = made(make)
    groups = layer_decay_groups(model, TrainingArguments(learning_rate=0.8, weight_decay=0.1), 0.5)
    names = {id(p): name for name, p in model.named_parameters()}
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(names)
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            number = next((i for i in (0, 1) if f".{i}." in name), None)
            embedding = any(word in name for word in ("embed", "wte", "wpe"))
            expected = 0.1 if embedding else 0.8 if number is None else (0.2, 0.4)[number]
            assert group["lr"] == pytest.approx(expected), name
            assert group["weight_decay"] == (0.1 if parameter.ndim >= 2 else 0.0), name


def test_the_optimizer_is_that_of_the_arguments():
    model = made(stock_bert)
    optimizer = layer_decay_optimizer(model, TrainingArguments(adam_beta2=0.98, adam_epsilon=1e-6), 0.9)
    assert type(optimizer) is torch.optim.AdamW and optimizer.defaults["fused"]
    assert optimizer.defaults["betas"] == (0.9, 0.98) and optimizer.defaults["eps"] == 1e-6
    assert layer_decay_optimizer(model, TrainingArguments(), 1.0) is None


def test_frozen_weights_are_in_no_group():
    model = adapt(made(stock_bert), AdaptationArguments("frozen"))
    groups = layer_decay_groups(model, TrainingArguments(), 0.5)
    assert {group["lr"] for group in groups} == {TrainingArguments().learning_rate}


def test_layers_that_are_not_found_are_an_error():
    with pytest.raises(ValueError, match="layer_decay=0.5: Linear has no parameters named layers.N."):
        layer_decay_optimizer(torch.nn.Linear(2, 2), TrainingArguments(), 0.5)


def test_fine_tuning_takes_muon_or_the_optimizer_of_the_arguments():
    model, args = torch.nn.Sequential(torch.nn.Linear(2, 2)), TrainingArguments(learning_rate=0.5)
    model.get_output_embeddings = lambda: None
    assert tuning_optimizer(model, args, 1.0) is None
    found = tuning_optimizer(model, args, 1.0, "muon", 0.25)
    assert sorted({group["lr"] for group in found.param_groups}) == [0.25, 0.5]
    with pytest.raises(DataError, match="layer_decay 0.9 works with optimizer trainer only: leave it 1 with muon"):
        tuning_optimizer(model, args, 0.9, "muon")


def test_a_run_with_layer_decay_resumes_bit_for_bit(tmp_path):
    """With transformers' own Trainer and run_training; and it is not the run without decay."""
    run_training(trainer(tmp_path / "whole", made(our_bert), 0.5))
    with pytest.raises(KeyboardInterrupt):
        run_training(trainer(tmp_path / "broken", made(our_bert), 0.5, callbacks=[At(6, stop)]))
    run_training(trainer(tmp_path / "broken", made(our_bert), 0.5))
    run_training(trainer(tmp_path / "plain", made(our_bert)))
    found = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken", "plain")]
    assert found[0] == found[1] != found[2]
