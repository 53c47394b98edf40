"""The texts of responses continue their prompts, whatever a tokenizer does to what it decodes first."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hftoolkit.rl.completion_texts import completion_texts
from hftoolkit.rl.rollout import Rollout
from hftoolkit.rl.stop_strings import StopStrings

PIECES = ["<pad>", "</s>", "\u2581Answer", ":", "\u2581Anna", "s", "\u2581", "<0xC3>", "<0xA9>"]
LLAMA2 = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]


def tokenizer(decoder):
    inner = Tokenizer(models.WordLevel({piece: n for n, piece in enumerate(PIECES)}, unk_token="<pad>"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoder
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>")


def rollout(*pairs):
    """A Rollout of (prompt, response)."""
    rows = [torch.tensor(prompt + response) for prompt, response in pairs]
    prompts, responses = (torch.tensor([len(pair[n]) for pair in pairs]) for n in (0, 1))
    input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return Rollout(input_ids, prompts, responses, torch.zeros(len(rows), 1), torch.ones(len(rows), dtype=torch.bool))


@pytest.mark.parametrize("decoder", [decoders.Metaspace(), decoders.Sequence(LLAMA2)], ids=["metaspace", "llama2"])
def test_a_response_keeps_the_space_before_its_first_word(decoder):
    ours = tokenizer(decoder)
    found = rollout(([2, 3], [4, 1]), ([2, 3, 6], [4]), ([1, 2], [5, 4, 5, 1]), ([2], [1]))
    texts = completion_texts(ours, found, ["Answer:"] * 4)
    assert texts == [" Anna", " Anna", "s Annas", ""]
    assert [ours.decode(response, skip_special_tokens=True) for _, response in found.token_ids()][0] == "Anna"
    assert completion_texts(ours, found, ["Answer:"] * 4, StopStrings(["nna"], ours)) == [" A", " A", "s A", ""]


def test_a_message_of_a_conversation_stands_alone():
    found = rollout(([2, 3], [4, 1]))
    assert completion_texts(tokenizer(decoders.Metaspace()), found, [[{"role": "user", "content": "Answer"}]]) == [
        "Anna"
    ]


def test_a_prompt_that_reads_otherwise_with_its_response_leaves_the_plain_text():
    """The last byte of the prompt is the first half of a letter."""
    found = rollout(([2, 7], [8, 4]))
    assert completion_texts(tokenizer(decoders.Sequence(LLAMA2)), found, ["Answer"]) == ["\ufffd Anna"]
