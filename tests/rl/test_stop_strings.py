"""Stop strings: found wherever they fall in the tokens, with tokenizers of two kinds and both ways of sampling."""

import pytest
import torch
from tiny_ppo import count_low_words, tiny_policy, tiny_prompts, tiny_tokenizer, tiny_trainer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hftoolkit.rl.ppo_trainer import PPOTrainer
from hftoolkit.rl.sampling import generate_responses, sample_responses
from hftoolkit.rl.stop_strings import StopStrings

TEXT = ["a line\n\nHuman: a question\n\nAssistant: an answer. ", "é à 漢字 and more\n\nHuman: again. "] * 20


def byte_tokenizer():
    """Byte-level BPE, some of whose tokens end inside of a character, and others write several."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>")


def ends_of(tokenizer, rows, strings):
    """After how many tokens the whole response contains a string for the first time, by decoding every beginning."""
    return [
        next((n for n in range(1, len(row) + 1) if any(s in tokenizer.decode(row[:n]) for s in strings)), 0)
        for row in rows
    ]


def responses(kind, tokenizer, backend, strings, number=60, length=24):
    """A policy over this vocabulary, and what it answers to short prompts."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_layer=1, n_embd=16, n_head=2, n_positions=64)
    policy = tiny_policy() if kind == "words" else GPT2LMHeadModel(config).eval()
    prompts = [[5, 6], [7]] * (number // 2)
    stop = StopStrings(strings, tokenizer)
    options = dict(stop_token_ids=[], pad_id=0, stop_strings=stop)
    if backend == "generate":
        made = generate_responses(policy, prompts, torch.Generator().manual_seed(0), length=length, **options)
    else:
        uniforms = torch.rand(number, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        made = sample_responses(policy, prompts, uniforms, **options)
    return made, [row[:n] for row, n in zip(made.ids.tolist(), made.lengths.tolist(), strict=True)]


@pytest.mark.parametrize("backend", ["native", "generate"])
@pytest.mark.parametrize(("kind", "strings"), [("words", ["w3 w4", "5 w1"]), ("bytes", ["\n", "a", "漢", "H"])])
def test_a_response_ends_at_the_first_token_that_completes_a_string(backend, kind, strings):
    tokenizer = tiny_tokenizer() if kind == "words" else byte_tokenizer()
    made, rows = responses(kind, tokenizer, backend, strings)
    ends = ends_of(tokenizer, rows, strings)
    assert made.ended.any() and not made.ended.all()
    for row, end, ended in zip(rows, ends, made.ended.tolist(), strict=True):
        assert end == (len(row) if ended else 0)
        assert ended or len(row) == 24
    live = torch.arange(24) < made.lengths.unsqueeze(1)
    assert not made.ids.masked_fill(live, 0).any()


@pytest.mark.parametrize("make", [tiny_tokenizer, byte_tokenizer])
def test_long_responses_are_read_from_their_end_alone(make):
    """Random tokens: what the last few say is what all of them say."""
    tokenizer, strings = make(), ["w3 w4", "n ans", "字 a", "é"]
    stop = StopStrings(strings, tokenizer)
    words = tokenizer("w1 w3 w4 w5 é à 漢字 and an answer. " * 4)["input_ids"]
    found = []
    for begin in range(len(words)):
        row = words[begin:] + words
        ends = [n for n in range(1, len(row) + 1) if stop.end([row[:n]])[0]]
        assert ends[:1] == [n for n in ends_of(tokenizer, [row], strings) if n], tokenizer.decode(row)
        found += ends[:1]
    assert max(found) > 1


@pytest.mark.parametrize("make", [tiny_tokenizer, byte_tokenizer])
def test_the_text_is_cut_before_the_first_of_the_strings(make):
    tokenizer = make()
    text = tokenizer.decode(tokenizer("w1 w2 w3 w4 w5 w3")["input_ids"])
    stop = StopStrings(["w4", "3 w"], tokenizer)
    assert stop.cut(text) == "w1 w2 w" and stop.cut("w1") == "w1"


@pytest.mark.parametrize("backend", ["native", "generate"])
def test_rewards_read_what_comes_before_and_the_penalty_knows_the_end(tmp_path, backend):
    seen = []

    def reward(completions, completion_ids, **columns):
        seen.extend(zip(completions, completion_ids, strict=True))
        return [1.0] * len(completions)

    options = dict(stop_strings=["w3", "w7", "w11"], rollout_backend=backend, eval_dataset=tiny_prompts(8))
    options |= dict(missing_eos_penalty=100.0, kl_coef=0.0, lam=1.0, reward=reward, response_length=3)
    trainer = tiny_trainer(tmp_path, **options)
    trainer.micro_batch(0)
    stopped = torch.tensor([ids[-1] in (2, 6, 10, 14) for _, ids in seen])
    assert stopped.any() and not stopped.all()
    totals = trainer.experience.returns[:, 0]
    assert (totals[stopped] == 1).all() and (totals[~stopped] == -99).all()
    for text, ids in seen:
        assert not set(text.split()) & {"w3", "w7", "w11"}
        words = [token for token in ids if token > 2]  # the others are special
        assert len(text.split()) == len(words) - (ids[-1] in (6, 10, 14))
    assert trainer.rollout_report["val/num_eos_tokens"] == stopped.sum()
    trainer.evaluate()
    assert trainer.samples and not any("w7" in sample["completion"].split() for sample in trainer.samples)


def test_strings_alone_are_enough_and_an_empty_one_is_refused(tmp_path):
    tokenizer, policy = tiny_tokenizer(), tiny_policy()
    tokenizer.eos_token = None
    args = tiny_trainer(tmp_path, stop_strings=["w3"], total_episodes=8).args
    trainer = PPOTrainer(policy, args, count_low_words, tiny_prompts(), tokenizer)
    assert trainer.stop_token_ids == []
    trainer.train()
    assert trainer.rollout_report["val/num_eos_tokens"] > 0
    with pytest.raises(ValueError, match=r"stop_strings must not be empty texts, got \['a', ''\]"):
        tiny_trainer(tmp_path, stop_strings=["a", ""])
