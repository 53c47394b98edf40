"""What a report of RLHF measures: answers, distance, wins."""

import copy
import json
import math
from dataclasses import dataclass

import pytest
import torch

from hftoolkit.data.prompts import as_dataset, tokenize_prompts
from hftoolkit.errors import DataError
from hftoolkit.rl import rlhf_results
from hftoolkit.rl.config import PPOConfig
from hftoolkit.rl.rlhf_figure import draw_over_optimisation
from hftoolkit.rl.rlhf_report import Answers, answer, compare, path_of, samples_of, win_rate, write_report

PROMPTS = [{"prompt": text, "number": n} for n, text in enumerate(["a b", "c", "d e f", "b a c d", "e", "f a"])]


@pytest.fixture(scope="module")
def made():
    """Two GPTs with new weights, their tokenizer, and prompts."""
    from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptForCausalLM
    from hftoolkit.tokenization import train_tokenizer

    tokenizer = train_tokenizer("word", ["a b c d e f"] * 3, vocab_size=20)
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = HftGptConfig(
            len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, initializer_range=0.5,
            max_position_embeddings=32, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        models.append(HftGptForCausalLM(config).eval())
    return models, tokenizer, tokenize_prompts(as_dataset(PROMPTS), tokenizer, max_prompt_length=8, on_long="stop")


def settings(tmp_path, **more):
    common = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": []}
    return PPOConfig(**common, response_length=6, rollout_forward_batch_size=4, **more)


def length_of(prompts, completions, number, **columns):
    assert number == list(range(len(PROMPTS)))  # the columns of the prompts reach the reward
    return [float(len(text)) for text in completions]


def test_answers_are_scored_and_their_distance_is_that_of_plain_passes(made, tmp_path):
    (model, reference), tokenizer, prompts = made
    found = answer(model, tokenizer, prompts, {"learned": length_of}, settings(tmp_path, temperature=0.7), reference)
    assert found.rewards["learned"].tolist() == [len(text) for text in found.texts]
    again = answer(model, tokenizer, prompts, {"learned": length_of}, settings(tmp_path, temperature=0.7), reference)
    assert again.texts == found.texts
    expected = []
    for row, ids in enumerate(prompts["prompt_ids"]):
        response = _ids_of(found, row, tokenizer, model, prompts, tmp_path)
        tokens = torch.tensor([ids + response])
        logs = [
            (one(input_ids=tokens).logits[0].double() / 0.7).log_softmax(-1)[
                range(len(ids) - 1, tokens.shape[1] - 1), response
            ]
            for one in (model, reference)
        ]
        expected.append((logs[0] - logs[1]).sum().item())
    assert found.kl.tolist() == pytest.approx(expected, abs=1e-4)
    assert max(map(abs, expected)) > 0.1


def _ids_of(found, row, tokenizer, model, prompts, tmp_path):
    """The sampled tokens of one row, from the same call below the texts."""
    from hftoolkit.rl.make_experience import uniform_numbers
    from hftoolkit.rl.rlhf_report import SAMPLING_STREAM
    from hftoolkit.rl.rollout import sample_rollout

    args = settings(tmp_path, temperature=0.7)
    uniforms = uniform_numbers(args.seed + SAMPLING_STREAM, len(prompts), args.response_length)
    options = {"stop_token_ids": [tokenizer.eos_token_id], "pad_id": tokenizer.pad_token_id}
    ids = sample_rollout(model, prompts["prompt_ids"][:], uniforms, args, **options).completion_ids()[row]
    asked, both = (
        prompts["prompt_ids"][row],
        tokenizer.decode(prompts["prompt_ids"][row] + ids, skip_special_tokens=True),
    )
    assert both == tokenizer.decode(asked) + found.texts[row]
    return ids


def test_a_model_has_no_distance_to_itself_and_none_is_told_without_a_reference(made, tmp_path):
    (model, _), tokenizer, prompts = made
    rewards = {"learned": length_of}
    assert answer(model, tokenizer, prompts, rewards, settings(tmp_path), model).kl.abs().max() == 0
    assert answer(model, tokenizer, prompts, rewards, settings(tmp_path)).kl is None


def test_a_stop_string_ends_an_answer_and_is_left_out(made, tmp_path):
    (model, _), tokenizer, prompts = made
    rewards = {"learned": length_of}
    plain = answer(model, tokenizer, prompts, rewards, settings(tmp_path))
    stop = max("abcdef", key=lambda letter: sum(letter in text for text in plain.texts))
    cut = answer(model, tokenizer, prompts, rewards, settings(tmp_path, stop_strings=[stop]))
    assert any(stop in text for text in plain.texts)
    assert [text.strip() for text in cut.texts] == [text.split(stop)[0].strip() for text in plain.texts]


def test_wins_count_ties_as_halves():
    rate, error = win_rate([2, 1, 0, 1], [1, 1, 1, 0])
    wins = [1, 0.5, 0, 1]
    deviation = math.sqrt(sum((win - 0.625) ** 2 for win in wins) / 3)
    assert rate == 0.625 and error == pytest.approx(deviation / 2)
    assert win_rate([1.0], [0.0]) == (1.0, 0.0)


def test_an_answer_without_a_score_is_none_of_the_mean_and_no_win(made, tmp_path):
    nan = float("nan")
    assert win_rate([2, nan, 0, 1], [1, 1, nan, 2]) == (0.5, pytest.approx(0.5))
    assert win_rate([nan], [1.0]) == (None, None)
    stages = {"SFT": answers([0, 1], [nan, 4], [0, 0]), "PPO": answers([1, nan], [nan, nan], [2, 4])}
    first, second = compare(stages)
    assert first["true_reward"] == 4 and first["true_scored"] == 1 and second["true_reward"] is None
    assert second["learned_win_rate"] == 1 and second["true_win_rate"] is None
    samples = samples_of(stages, as_dataset(PROMPTS[:2]))
    text = write_report({"stages": [first, second], "reward_model": {}, "path": [], "samples": samples})
    assert "| SFT | 0.500 | 4.000 (of 1) |" in text and "| PPO | 1.000 (of 1) | - |" in text
    assert "- PPO (learned -, true -): text 1" in text

    (model, _), tokenizer, prompts = made

    def second(completions, number, trainer_state):  # asks for the state, as TRL allows
        return [n + trainer_state.global_step if n == 2 else None for n in number]

    rewards = {"true": second}
    found = answer(model, tokenizer, prompts, rewards, settings(tmp_path)).rewards["true"]
    assert found.isfinite().tolist() == [False, False, True, False, False, False] and found[2] == 2


def test_a_reward_that_fails_is_treated_as_ppo_was_told(made, tmp_path):
    (model, _), tokenizer, prompts = made

    def picky(completions, number, **columns):
        if 3 in number:
            raise OSError("no connection")
        return [1.0] * len(completions)

    with pytest.raises(DataError, match="picky raised OSError: no connection"):
        answer(model, tokenizer, prompts, {"true": picky}, settings(tmp_path))
    found = answer(model, tokenizer, prompts, {"true": picky}, settings(tmp_path, on_reward_error="skip"))
    assert found.rewards["true"].isfinite().tolist() == [True, True, True, False, True, True]


@dataclass
class Whole:
    """The arguments of a whole run that the report reads."""

    model_name_or_path: str | None = None


def saved(folder, model, tokenizer):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def report_of(made, tmp_path, monkeypatch):
    """The report of two models in their folders, whose answers are scored by their length."""
    models, tokenizer, _ = made

    def lengths(prompts, completions, **columns):
        texts = [text if isinstance(text, str) else text[0]["content"] for text in completions]
        return [float(len(text)) for text in texts]

    monkeypatch.setattr(rlhf_results, "load_reward", lambda name: lengths)
    monkeypatch.setattr(rlhf_results, "say", lambda text: None)
    for name, model in zip(("sft", "ppo"), models, strict=True):
        saved(tmp_path / "run" / name, model, tokenizer)

    def make(prompts, start=None, **options):
        given = settings(tmp_path, **options)
        return rlhf_results.make_report(tmp_path / "run", Whole(start), as_dataset(prompts), given)

    return make


def test_every_model_answers_the_same_prompts(made, report_of, tmp_path):
    (model, _), tokenizer, _ = made
    short = {"max_position_embeddings": 9}  # with a response of 6 tokens, the first model reads prompts of 3
    start = type(model)(type(model.config)(**(model.config.to_dict() | short)))
    saved(tmp_path / "start", start, tokenizer)
    prompts = [{"prompt": "a b c d e f a b c"}, *PROMPTS]
    report = report_of(prompts, str(tmp_path / "start"), on_long_prompt="skip", max_prompt_length=8)
    kept = ["a b", "c", "d e f", "e", "f a"]
    assert [row["stage"] for row in report["stages"]] == ["start", "SFT", "PPO"]
    assert {row["prompts"] for row in report["stages"]} == {5}
    assert [sample["prompt"] for sample in report["samples"]] == kept
    with pytest.raises(DataError, match="none of the 1 held-out prompts leaves room for a response of 6 tokens"):
        report_of(prompts[:1], on_long_prompt="skip", max_prompt_length=8)


def test_a_start_without_a_chat_template_reads_conversations_by_that_of_sft(made, report_of, tmp_path):
    (model, _), tokenizer, _ = made
    saved(tmp_path / "start", model, tokenizer)
    prompts = [{"prompt": [{"role": "user", "content": text}]} for text in ("a b", "c")]
    with pytest.raises(DataError, match="held-out prompt 0 is a conversation, and the tokenizer has no chat template"):
        report_of(prompts, str(tmp_path / "start"))
    template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    for name in ("sft", "ppo"):
        other = copy.deepcopy(tokenizer)
        other.chat_template = template
        other.save_pretrained(tmp_path / "run" / name)
    report = report_of(prompts, str(tmp_path / "start"), stop_token_ids=[tokenizer.eos_token_id, 10])
    texts = [sample["answers"]["start"]["text"] for sample in report["samples"]]
    assert texts == [sample["answers"]["SFT"]["text"] for sample in report["samples"]]


def answers(learned, true, kl):
    learned, true, kl = (torch.tensor(values, dtype=torch.float64) for values in (learned, true, kl))
    n = len(learned)
    rewards = {"learned": learned, "true": true}
    return Answers([f"text {k}" for k in range(n)], rewards, kl, torch.full((n,), 3), torch.ones(n, dtype=torch.bool))


def test_stages_are_compared_with_the_one_before():
    stages = {"SFT": answers([0, 1], [1, 0], [0, 0]), "PPO": answers([1, 2], [0, 0], [2, 4])}
    first, second = compare(stages)
    assert first["learned_win_rate"] is None and first["kl"] == 0
    assert second["learned_win_rate"] == 1 and second["true_win_rate"] == 0.25
    assert second["learned_reward"] == 1.5 and second["true_reward"] == 0 and second["kl"] == 3
    assert second["length"] == 3 and second["ended"] == 1


def test_the_path_of_ppo_takes_rewards_by_their_names():
    history = [
        {"step": 0, "eval_kl": 0.0, "eval_rewards/judge": -1.0, "eval_rewards/reward": 2.0},  # in any order
        {"step": 4, "loss": 0.1},
        {"step": 8, "eval_kl": 1.5, "eval_rewards/judge": -0.5, "eval_rewards/reward": 3.0},
    ]
    assert path_of(history, "reward") == [
        {"step": 0, "kl": 0.0, "learned_reward": 2.0, "true_reward": -1.0},
        {"step": 8, "kl": 1.5, "learned_reward": 3.0, "true_reward": -0.5},
    ]
    del history[0]["eval_rewards/judge"], history[2]["eval_rewards/judge"]
    assert path_of(history, "reward")[1] == {"step": 8, "kl": 1.5, "learned_reward": 3.0}


def test_the_report_can_be_read(tmp_path):
    stages = {"SFT": answers([0, 1], [1, 0], [0, 0]), "PPO": answers([1, 2], [0, 0], [2, 4])}
    prompts = {"prompt": ["Who?", "What?"]}

    class Prompts(dict):
        def __len__(self):
            return 2

    path = [{"step": 0, "kl": -1e-6, "learned_reward": 0.5, "true_reward": 0.5}]
    path.append({"step": 8, "kl": 3.0, "learned_reward": 1.5, "true_reward": 0.0})
    samples = samples_of(stages, Prompts(prompts))
    report = {"stages": compare(stages), "reward_model": {"accuracy": 0.8}, "path": path, "samples": samples}
    text = write_report(json.loads(json.dumps(report)))
    assert "| PPO | 1.500 | 0.000 | 3.00 | 3.0 | 1.00 | 1.00 ± 0.00 | 0.25 ± 0.25 |" in text
    assert "| 0 | 0.00 | 0.500 |" in text
    assert "accuracy 0.8" in text and "| 8 | 3.00 | 1.500 | 0.000 |" in text
    assert "- PPO (learned 1, true 0): text 0" in text and "Who?" in text
    draw_over_optimisation(path, tmp_path / "picture.png", title="a run")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
