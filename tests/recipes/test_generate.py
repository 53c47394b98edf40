"""Generation from the command line: what stands before a prompt."""

import pytest
import torch

from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptForCausalLM
from hftoolkit.recipes import generate
from hftoolkit.tokenization import train_tokenizer


@pytest.fixture
def folder(tmp_path):
    """A model whose likeliest next token depends strongly on what it has read."""
    tokenizer = train_tokenizer("byte_bpe", ["a cat sat on a mat. the dog ran to the den."] * 40, vocab_size=300)
    config = HftGptConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    torch.manual_seed(0)
    model = HftGptForCausalLM(config)
    for weight in model.parameters():
        weight.data.add_(0.5 * torch.randn(weight.shape))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model", model.eval(), tokenizer


def likeliest(model, tokenizer, ids, number):
    for _ in range(number):
        ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
    return tokenizer.decode(ids[-number:], skip_special_tokens=True)


@pytest.mark.parametrize("as_document", [True, False])
def test_what_stands_before_a_prompt(folder, as_document):
    place, model, tokenizer = folder
    argv = ["--model_name_or_path", str(place), "--do_sample", "false", "--max_new_tokens", "5"]
    argv += ["--prompt", "a cat", "", "--as_document", str(as_document).lower()]
    found = generate.main(*generate.parse(argv))
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = tokenizer("a cat", add_special_tokens=False)["input_ids"]
    expected = likeliest(model, tokenizer, [start, *ids] if as_document else ids, 5)
    other = likeliest(model, tokenizer, ids if as_document else [start, *ids], 5)
    assert found[0] == {"prompt": "a cat", "continuation": expected} and expected != other
    assert found[1]["continuation"] == likeliest(model, tokenizer, [start], 5)
