"""PPOTrainer: the mathematics against a transcription, and each fault that its predecessors had."""

import math
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, DatasetDict
from tiny_ppo import (
    EOS,
    count_low_words,
    history,
    tiny_args,
    tiny_policy,
    tiny_prompts,
    tiny_text,
    tiny_tokenizer,
    tiny_trainer,
    weights,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from hftoolkit.errors import CheckpointError, DataError
from hftoolkit.rl import make_experience, rollout
from hftoolkit.rl.evaluation import evaluate_reference
from hftoolkit.rl.ppo_trainer import PPOTrainer
from hftoolkit.rl.reward_model import RewardModel
from hftoolkit.rl.reward_sources import load_reward
from hftoolkit.training.overview import amount, describe_run


def value_model(policy, seed=5):
    config = type(policy.config)(**policy.config.to_dict() | {"num_labels": 1})
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(config)


NEEDED = (
    "rollout_backend", "rollout_forward_batch_size", "temperature", "bf16", "fp16", "world_size", "on_reward_error", "device",
    "response_length", "cache_implementation",
)  # fmt: skip


def trained(folder, **changes):
    trainer = tiny_trainer(folder, **changes)
    trainer.train()
    return trainer


class Recorder(TrainerCallback):
    """Keeps what a callback is told, and stops where it is asked to."""

    def __init__(self, stop_at=None):
        self.events, self.stop_at = [], stop_at

    def on_step_begin(self, args, state, control, **kwargs):
        self.events.append("step_begin")

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.events.append("optimizer_step")

    def on_evaluate(self, args, state, control, **kwargs):
        self.events.append("evaluate")

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step == self.stop_at


# The mathematics.


def reward_at_the_end(completion_ids, **columns):
    return [math.sin(sum(ids)) for ids in completion_ids]


def transcription(policy, reference, value, rows, args):
    """PPO's first update in float64: loops over responses and tokens, no function of the package.

    Args:
        rows: (prompt, response) as lists of ids, the responses of one minibatch that is also the rollout.

    Returns:
        (policy loss, value loss) as tensors with gradients.
    """
    scores = [math.sin(sum(response)) for _, response in rows]
    per_row = []
    for (prompt, response), score in zip(rows, scores, strict=True):
        ids = torch.tensor([prompt + response])
        new = policy(input_ids=ids).logits[0].double() / args.temperature
        old = reference(input_ids=ids).logits[0].double() / args.temperature
        hidden = value.transformer(input_ids=ids).last_hidden_state[0]
        values = value.score(hidden).double()[:, 0]
        steps = []
        for t, token in enumerate(response):
            at = len(prompt) + t - 1
            logprob = new[at, token] - torch.log(torch.exp(new[at]).sum())
            ref = old[at, token] - torch.log(torch.exp(old[at]).sum())
            reward = -args.kl_coef * (logprob.item() - ref.item()) + (score if t == len(response) - 1 else 0.0)
            steps.append((logprob, values[at], reward))
        per_row.append(steps)
    advantages, returns = [], []
    for steps in per_row:
        v = [value.item() for _, value, _ in steps] + [0.0]
        deltas = [steps[t][2] + args.gamma * v[t + 1] - v[t] for t in range(len(steps))]
        own = [
            sum((args.gamma * args.lam) ** (k - t) * deltas[k] for k in range(t, len(deltas)))
            for t in range(len(deltas))
        ]
        advantages += own
        returns += [a + b for a, b in zip(own, v, strict=False)]
    mean = sum(advantages) / len(advantages)
    variance = sum((a - mean) ** 2 for a in advantages) / len(advantages)
    tokens = [step for steps in per_row for step in steps]
    policy_loss, value_loss = 0.0, 0.0
    for (logprob, value_now, _), advantage, target in zip(tokens, advantages, returns, strict=True):
        whitened = (advantage - mean) / math.sqrt(variance + 1e-8)
        policy_loss = policy_loss - torch.exp(logprob - logprob.detach()) * whitened
        value_loss = value_loss + 0.5 * (value_now - target) ** 2
    return policy_loss / len(tokens), value_loss / len(tokens)


def test_the_first_update_is_that_of_a_transcription_in_float64(tmp_path):
    """Rewards, advantages, both losses and the gradients of every weight; another reference, so that the KL is not 0."""
    policy, reference = tiny_policy(), tiny_policy(seed=0)
    for weight in reference.parameters():
        weight.data.mul_(0.9)
    critic = value_model(policy)
    options = dict(temperature=0.8, kl_coef=0.3, gamma=0.9, lam=0.7, vf_coef=0.5, max_grad_norm=0.0)
    size = dict(per_device_train_batch_size=8, rollout_batch_size=8)
    trainer = tiny_trainer(
        tmp_path, policy, reward_at_the_end, value_model=critic, ref_model=reference, **options, **size
    )
    part = trainer.micro_batch(0)
    experience = trainer.experience
    rows = []
    for ids, p, n in zip(experience.input_ids, experience.prompt_lengths, experience.response_lengths, strict=True):
        rows.append((ids[:p].tolist(), ids[p : p + n].tolist()))
    assert len({len(response) for _, response in rows}) > 1
    trainer.callback_handler.callbacks[-1].steps = 1
    loss = trainer.compute_loss(trainer.model, part)
    loss.backward()
    ours = {name: weight.grad.clone() for name, weight in trainer.model.named_parameters() if weight.grad is not None}
    trainer.model.zero_grad()
    theirs = transcription(policy, reference, critic, rows, trainer.args)
    total = theirs[0] + 0.5 * theirs[1]
    torch.testing.assert_close(loss.double(), total, rtol=1e-6, atol=1e-6)
    total.backward()
    for name, weight in trainer.model.named_parameters():
        if name in ours:
            torch.testing.assert_close(ours[name], weight.grad, rtol=1e-4, atol=1e-6)
        else:
            assert weight.grad is None or not weight.grad.any()
    assert sum(bool(gradient.any()) for gradient in ours.values()) > 40
    report = trainer.rollout_report
    assert report["objective/kl"] != 0 and report["rewards/reward_at_the_end"] == pytest.approx(
        sum(math.sin(sum(response)) for _, response in rows) / 8, abs=1e-6
    )


@pytest.mark.parametrize("kind", ["gpt2", "llama", "hft_gpt"])
@pytest.mark.parametrize("backend", ["native", "generate"])
def test_at_the_first_update_nothing_has_moved(tmp_path, kind, backend):
    """Ratio 1, no KL to sampling nor to the reference, nothing clipped; whatever the generation config says."""
    policy = tiny_policy(kind)
    policy.generation_config.repetition_penalty = 1.5
    policy.generation_config.suppress_tokens = [4, 5]
    trainer = trained(tmp_path, policy=policy, rollout_backend=backend)
    assert history(trainer, "val/ratio")[0] == pytest.approx(1, abs=1e-5)
    assert history(trainer, "policy/approxkl_avg")[0] < 1e-9
    assert history(trainer, "policy/clipfrac_avg")[0] == 0
    assert history(trainer, "objective/kl")[0] == pytest.approx(0, abs=1e-4)
    assert history(trainer, "objective/kl")[-1] != pytest.approx(0, abs=1e-4)


def test_bfloat16_is_used_and_leaves_the_ratio_at_one(tmp_path):
    trainer = trained(tmp_path, bf16=True)
    assert trainer.accelerator.mixed_precision == "bf16"
    assert history(trainer, "val/ratio")[0] == pytest.approx(1, abs=1e-6)
    assert abs(history(trainer, "objective/kl")[0]) < 1e-6


def test_dropout_of_a_functional_attention_is_off(tmp_path):
    trainer = trained(tmp_path, policy=tiny_policy("llama", attention_dropout=0.5), learning_rate=0.0)
    assert history(trainer, "val/ratio") == pytest.approx([1] * 8, abs=1e-5)


def test_the_reward_rises(tmp_path):
    prompts = [{"prompt": "w1"}] * 32
    options = dict(rollout_batch_size=32, per_device_train_batch_size=8, total_episodes=640, kl_coef=0.0)
    trainer = trained(tmp_path, prompts=prompts, vf_coef=0.5, **options)
    scores = history(trainer, "objective/scores")
    assert sum(scores[-8:]) / 8 > 1.5 * scores[0] > 0


# One step of Trainer is one minibatch.


@pytest.mark.parametrize(("size", "accumulated", "steps"), [(4, 1, 8), (2, 2, 8), (1, 4, 8), (8, 1, 4), (2, 1, 16)])
def test_updates_are_epochs_times_minibatches(tmp_path, size, accumulated, steps):
    """Two rollouts of 8 responses, 2 epochs; accumulation does not take updates away."""
    recorder = Recorder()
    trainer = trained(
        tmp_path,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulated,
        callbacks=[recorder],
        learning_rate=1e-3,
    )
    assert trainer.state.global_step == steps == recorder.events.count("optimizer_step")
    assert recorder.events.count("step_begin") == steps
    assert all(0.5 < ratio < 2 for ratio in history(trainer, "val/ratio"))  # not diluted by empty places


def test_accumulation_does_not_change_the_result(tmp_path):
    whole = trained(tmp_path / "a", per_device_train_batch_size=8)
    cut = trained(tmp_path / "b", per_device_train_batch_size=2, gradient_accumulation_steps=4)
    torch.testing.assert_close(weights(cut), weights(whole), rtol=0, atol=2e-5)
    assert history(cut, "loss") == pytest.approx(history(whole, "loss"), abs=1e-5)
    assert (weights(whole) - weights(tiny_trainer(tmp_path / "c"))).abs().max() > 1e-2


def test_the_same_seed_gives_the_same_weights(tmp_path):
    first, second, other = (weights(trained(tmp_path / str(n), seed=seed)) for n, seed in enumerate((1, 1, 2)))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_max_steps_callbacks_and_clipping_are_trainers_own(tmp_path):
    assert trained(tmp_path / "a", total_episodes=None, max_steps=3).state.global_step == 3
    assert trained(tmp_path / "b", callbacks=[Recorder(stop_at=2)]).state.global_step == 2
    assert trained(tmp_path / "c", total_episodes=None, num_train_epochs=1.0).state.global_step == 8
    reported = history(trained(tmp_path / "d", logging_steps=4), "loss")
    assert len(reported) == 2
    clipped, free = (
        trained(tmp_path / name, max_grad_norm=norm, optim="sgd", total_episodes=None, max_steps=1)
        for name, norm in (("e", 1e-4), ("f", 100.0))
    )
    start = weights(tiny_trainer(tmp_path / "g"))
    assert (weights(clipped) - start).norm() < 1.1e-6 < (weights(free) - start).norm()
    assert history(free, "grad_norm")[0] > 1e-3


def test_the_value_function_can_have_a_rate_of_its_own(tmp_path):
    trainer = tiny_trainer(tmp_path, value_learning_rate=0.5, lr_scheduler_type="constant")
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.args.learning_rate = 0.0
    trainer.train()
    moved = {name for name, weight in trainer.model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {"value_head.weight", "value_head.bias"}


def test_gradient_checkpointing_is_used_and_changes_nothing(tmp_path):
    plain = trained(tmp_path / "a")
    saving = tiny_trainer(tmp_path / "b", gradient_checkpointing=True)
    calls = []
    block = saving.model.policy.transformer.h[0]
    block.attn.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    saving.train()
    assert calls.count(True) >= 2 * 8  # once more in every backward
    torch.testing.assert_close(weights(saving), weights(plain), rtol=0, atol=1e-5)


def test_where_products_are_rounded_the_policy_is_scored_again(tmp_path, monkeypatch):
    """With TF32 cached decoding and a full pass differ, as in bfloat16."""
    asked = []
    plain = make_experience.score_rollout
    monkeypatch.setattr(
        make_experience,
        "score_rollout",
        lambda *args, score_policy: asked.append(score_policy) or plain(*args, score_policy=score_policy),
    )
    tiny_trainer(tmp_path).micro_batch(0)
    torch.set_float32_matmul_precision("high")
    try:
        tiny_trainer(tmp_path).micro_batch(0)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert asked == [False, True]


def test_a_report_is_of_all_rollouts_since_the_last(tmp_path):
    """Means, but of the number of episodes and the longest response; a resumed run reports the same."""

    def rarely(completions, **columns):
        calls.append(1)
        return [math.nan if n < 2 and len(calls) == 2 else 0.125 * len(text) for n, text in enumerate(completions)]

    options = dict(total_episodes=40, on_reward_error="skip", reward=rarely, learning_rate=1e-3)
    calls = []
    each = history_of(trained(tmp_path / "a", logging_steps=4, **options))
    calls = []
    saving = dict(logging_steps=12, save_strategy="steps", save_steps=8)
    whole = trained(tmp_path / "b", **saving, **options)
    found = history_of(whole)
    assert len(each) == 5 and len(found) == 1
    for name in ("objective/kl", "objective/scores", "rewards/rarely", "val/num_eos_tokens", "loss/value_avg"):
        assert found[0][name] == pytest.approx(sum(entry[name] for entry in each[:3]) / 3, abs=1e-6), name
    assert found[0]["completions/left_out"] == pytest.approx(2 / 3) and found[0]["episode"] == 24
    assert found[0]["completions/max_length"] == max(entry["completions/max_length"] for entry in each[:3])
    again = tiny_trainer(tmp_path / "b", **saving, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "b/checkpoint-8"))
    of_rollouts = [name for name in found[0] if name.startswith(("objective/", "completions/", "rewards/"))]
    assert len(of_rollouts) > 9 and all(history_of(again)[0][name] == found[0][name] for name in of_rollouts)
    often = history_of(trained(tmp_path / "c", **options))
    assert [entry["episode"] for entry in often] == [8 * n for n in range(1, 6) for _ in range(4)]


def history_of(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def test_the_screen_names_the_policy_and_counts_every_model(tmp_path):
    policy = tiny_policy()
    size = 4 * sum(weight.numel() for weight in policy.parameters())
    critic = value_model(policy)
    count_low_words.model = critic
    try:
        trainer = tiny_trainer(tmp_path, policy, value_model=critic)
        lines = describe_run(trainer, trainer.state).splitlines()
        assert (
            lines[0]
            .split(None, 1)[1]
            .startswith("GPT2LMHeadModel with GPT2ForSequenceClassification as value function, ")
        )
        of_critic = 4 * sum(weight.numel() for weight in critic.parameters())
        assert f"weights {amount(size + of_critic)}, " in lines[4]
        assert f"reference and reward models {amount(size + of_critic)};" in lines[4]
    finally:
        del count_low_words.model
    trainer = tiny_trainer(tmp_path, peft_config=lora())
    assert "GPT2LMHeadModel with a value head, " in describe_run(trainer, trainer.state)
    assert "reference" not in describe_run(trainer, trainer.state)


def test_transformers_sampling_differs_between_processes(tmp_path):
    """Of equal prompts, the second process answers otherwise than the first."""
    trainer = tiny_trainer(tmp_path, rollout_backend="generate", prompts=["w1"] * 8)
    found = []
    for rank in (0, 1):
        trainer.args = SimpleNamespace(
            **{name: getattr(trainer.args, name) for name in NEEDED} | {"process_index": rank}
        )
        sampled, _, _ = make_experience.respond(
            trainer, trainer.model, trainer.train_dataset[:8], torch.zeros(8, 6), seed=3
        )
        found.append(sampled.completion_ids())
    assert found[0] != found[1]


def test_the_cache_of_generate_is_the_one_that_was_set(tmp_path, monkeypatch):
    asked, plain = [], rollout.generate_responses
    monkeypatch.setattr(
        rollout, "generate_responses", lambda *args, **kw: asked.append(kw["cache"]) or plain(*args, **kw)
    )
    tiny_trainer(tmp_path, rollout_backend="generate", cache_implementation="static").micro_batch(0)
    assert set(asked) == {"static"}


# Rewards.


def test_reward_models_follow_the_policy_to_its_device(tmp_path):
    class Judge(torch.nn.Module):
        def to(self, device):
            self.moved_to = device

    count_low_words.model = Judge()
    try:
        trainer = tiny_trainer(tmp_path)
        assert count_low_words.model.moved_to == trainer.args.device
    finally:
        del count_low_words.model


def test_the_reported_penalty_is_the_one_that_was_taken(tmp_path):
    reference = tiny_policy(seed=1)
    trainer = tiny_trainer(tmp_path, ref_model=reference, kl_estimator="k3", kl_coef=0.5, reward=no_reward)
    trainer.micro_batch(0)
    report = trainer.rollout_report
    assert report["objective/non_score_reward"] < 0 and report["objective/non_score_reward"] != pytest.approx(
        -0.5 * report["objective/kl"], rel=1e-3
    )
    trainer = tiny_trainer(tmp_path, ref_model=reference, kl_estimator="k3", kl_coef=0.5, reward=no_reward, lam=1.0)
    trainer.micro_batch(0)
    taken = trainer.experience.returns[:, 0].mean()
    assert report["objective/non_score_reward"] == pytest.approx(float(taken), rel=1e-5)


def no_reward(completions, **columns):
    return [0.0] * len(completions)


def test_the_end_of_a_response_is_the_stop_token_that_was_set(tmp_path):
    """With another stop token than the tokenizer's, only responses without it are punished."""
    trainer = tiny_trainer(tmp_path, stop_token_ids=[7, 9, 12], missing_eos_penalty=100.0, kl_coef=0.0, lam=1.0)
    trainer.micro_batch(0)
    experience = trainer.experience
    rows = zip(experience.input_ids, experience.prompt_lengths, experience.response_lengths, strict=True)
    stopped = torch.tensor([int(ids[p + n - 1]) in (7, 9, 12) for ids, p, n in rows])
    assert stopped.any() and not stopped.all()
    totals = experience.returns[:, 0]  # with lambda 1 and no penalty: the score itself
    assert (totals[stopped] >= 0).all() and (totals[~stopped] < -90).all()


def test_columns_and_several_rewards(tmp_path):
    def matches(completions, wanted):
        return [float(text.split()[:1] == [word]) for text, word in zip(completions, wanted, strict=True)]

    prompts = [{"prompt": "w1", "wanted": "w2"}] * 16
    trainer = trained(tmp_path, reward=[count_low_words, matches], prompts=prompts, reward_weights=[0.0, 2.0])
    entry = trainer.state.log_history[0]
    assert entry["objective/scores"] == pytest.approx(2 * entry["rewards/matches"])


def test_a_reward_that_is_no_number_stops_or_is_left_out(tmp_path):
    calls = []

    def sometimes(completions, **columns):
        calls.append(completions)
        return [math.nan if n == 2 else 1.0 for n in range(len(completions))]

    with pytest.raises(
        DataError, match="1 of 8 responses have no score: sometimes gave nan for the completion '.*' of"
    ):
        trained(tmp_path / "a", reward=sometimes)
    trainer = trained(tmp_path / "b", reward=sometimes, on_reward_error="skip")
    assert history(trainer, "completions/left_out") == [1] * 8
    assert history(trainer, "objective/scores") == history(trainer, "rewards/sometimes") == [1] * 8


def test_a_micro_batch_of_which_nothing_is_left(tmp_path):
    """Every response but two is left out; with one response a micro-batch most of these have no token."""

    def rarely(completions, **columns):
        return [1.0 * n if n < 2 else math.inf for n in range(len(completions))]

    options = dict(reward=rarely, on_reward_error="skip")
    whole = trained(tmp_path / "a", per_device_train_batch_size=8, **options)
    cut = trained(tmp_path / "b", per_device_train_batch_size=1, gradient_accumulation_steps=8, **options)
    assert history(cut, "completions/left_out") == [6] * 4
    torch.testing.assert_close(weights(cut), weights(whole), rtol=0, atol=2e-5)


def test_a_reward_that_raises_loses_nothing(tmp_path):
    """The run stops with a checkpoint at the last rollout, names the response, and goes on with the mended function."""
    calls = []

    def broken(completions, **columns):
        calls.append(completions)
        if len(calls) > 1:
            raise OSError("no connection")
        return count_low_words(completions)

    options = dict(save_strategy="steps", save_steps=100, total_episodes=24)
    whole = trained(tmp_path / "a", **options)
    calls.clear()
    with pytest.raises(
        DataError, match="broken raised OSError: no connection, for the completion '.*' of the prompt 'w"
    ):
        trained(tmp_path / "b", reward=broken, **options)
    again = tiny_trainer(tmp_path / "b", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "b/checkpoint-4"))
    assert again.state.global_step == 12 and torch.equal(weights(again), weights(whole))


def test_a_reward_that_raises_for_one_response_leaves_it_out(tmp_path):
    def picky(completions, **columns):
        if any("w5" in text.split() for text in completions):
            raise KeyError("w5")
        return [1.0] * len(completions)

    with pytest.raises(DataError, match="picky raised KeyError: 'w5', for the completion '.*w5"):
        trained(tmp_path / "a", reward=picky)
    trainer = trained(tmp_path / "b", reward=picky, on_reward_error="skip")
    left_out = history(trainer, "completions/left_out")
    assert left_out and 0 < left_out[0] < 8
    held_out = dict(eval_dataset=tiny_prompts(), on_reward_error="skip")
    found = tiny_trainer(tmp_path / "c", reward=picky, **held_out).evaluate()
    assert found["eval_left_out"] > 0 and found["eval_reward"] == found["eval_rewards/picky"] == 1
    with pytest.raises(DataError, match="picky raised"):
        tiny_trainer(tmp_path / "d", reward=picky, eval_dataset=tiny_prompts()).evaluate()


def test_rewards_of_equal_names_and_some_that_do_not_apply(tmp_path):
    rewards = [lambda completions, c=c, **_: [c, None] * (len(completions) // 2) for c in (0.25, 0.5)]
    trainer = tiny_trainer(tmp_path, reward=[*rewards, count_low_words], eval_dataset=tiny_prompts(6))
    found = trainer.evaluate()
    assert found["eval_rewards/<lambda>"] == 0.25 and found["eval_rewards/<lambda>_2"] == 0.5
    assert found["eval_reward"] == pytest.approx(found["eval_rewards/count_low_words"] + 0.375)


def test_an_empty_response_is_a_response(tmp_path):
    """A policy that ends at once: the text is empty, its one token is the end, and training goes on."""
    policy = tiny_policy()
    policy.transformer.wte.weight.data[2] *= 0
    policy.transformer.ln_f.bias.data.fill_(0)
    policy.transformer.ln_f.weight.data.fill_(0)
    with torch.no_grad():
        policy.transformer.ln_f.bias[0] = 50.0
        policy.transformer.wte.weight[:, 0] = -1.0
        policy.transformer.wte.weight[2, 0] = 1.0
    seen = []

    def reward(completions, **columns):
        seen.extend(completions)
        return [0.5] * len(completions)

    trainer = trained(tmp_path, policy=policy, reward=reward, learning_rate=1e-6)
    assert set(seen) == {""} and history(trainer, "completions/mean_length") == [1.0] * 8
    assert all(map(math.isfinite, history(trainer, "loss")))


def test_adaptive_kl_and_the_stop(tmp_path):
    trainer = trained(tmp_path / "a", kl_target=1e-6, kl_horizon=8, total_episodes=32)
    coefficients = history(trainer, "objective/kl_coef")
    assert coefficients[0] == 0.05 and coefficients[-1] > coefficients[0]
    trainer = trained(tmp_path / "b", max_kl=1e-3, kl_coef=0.0, total_episodes=160)
    assert trainer.state.global_step == 4  # the first rollout is at the reference; on the second no update is made
    assert "max_kl is 0.001" in trainer.stopped_by
    assert history(trainer, "objective/kl")[-1] > 1e-3  # why it stopped is in the report
    assert history(trainer, "objective/kl_coef") == [0.0] * 5
    cut = trained(tmp_path / "c", max_kl=1e-3, kl_coef=0.0, total_episodes=160, gradient_accumulation_steps=2, per_device_train_batch_size=2)  # fmt: skip
    assert cut.state.global_step == 4


@pytest.mark.slow
def test_an_adaptive_coefficient_brings_the_kl_to_its_target(tmp_path):
    """The mean KL of the last third within 10% of the target."""
    prompts = [{"prompt": "w1"}] * 64
    options = dict(rollout_batch_size=64, per_device_train_batch_size=16, total_episodes=64 * 90, logging_steps=8)
    options |= dict(kl_coef=0.02, kl_target=1.5, kl_horizon=320, learning_rate=3e-3, lr_scheduler_type="constant")
    trainer = trained(tmp_path, prompts=prompts, vf_coef=0.5, **options)
    kl = history(trainer, "objective/kl")[-30:]
    assert sum(kl) / len(kl) == pytest.approx(1.5, rel=0.1)


def test_a_policy_that_never_ends(tmp_path):
    """Every response is cut off: all are punished, and with bootstrapping each goes on with its value."""
    options = dict(stop_token_ids=[EOS], kl_coef=0.0, lam=1.0, missing_eos_score=-1.0, rollout_backend="native")
    policy = without_end(tiny_policy())
    trainer = trained(tmp_path / "a", policy=policy, **options)
    assert history(trainer, "val/num_eos_tokens") == [0] * 8
    assert history(trainer, "completions/mean_length") == [6] * 8
    assert history(trainer, "objective/rlhf_reward") == [-1] * 8
    trainer = tiny_trainer(tmp_path / "b", policy=without_end(tiny_policy()), bootstrap_truncated=True, **options)
    torch.nn.init.constant_(trainer.model.value_head.bias, 0.5)
    trainer.micro_batch(0)
    torch.testing.assert_close(trainer.experience.returns, torch.full((8, 6), -0.5))


def without_end(policy):
    """A GPT-2 that never samples the end token: its logit is that of minus the mean state."""
    with torch.no_grad():
        policy.transformer.ln_f.weight.mul_(0.1)
        policy.transformer.ln_f.bias[0] = 30.0
        policy.transformer.wte.weight[:, 0] = 0.0
        policy.transformer.wte.weight[EOS, 0] = -3.0
    return policy


def test_pretraining_beside_it(tmp_path):
    """PPO-ptx: the gradient is that of PPO plus the coefficient times that of the language model's mean loss."""
    options = dict(ptx_dataset=tiny_text(), ptx_coef=3.0, ptx_batch_size=2)
    trainer = tiny_trainer(tmp_path / "a", **options)
    part = trainer.micro_batch(0)
    assert part["ptx_input_ids"].shape == (8, 5)
    loss = trainer.compute_loss(trainer.model, part)
    ids = part.pop("ptx_input_ids")
    alone = trainer.compute_loss(trainer.model, part)
    expected = 3.0 * trainer.model.policy(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(loss - alone, expected)
    found = history(trained(tmp_path / "b", **options), "loss/ptx_avg")
    assert found[-1] < found[0]
    cut = trained(tmp_path / "c", per_device_train_batch_size=1, gradient_accumulation_steps=4, **options)
    assert history(cut, "loss/ptx_avg") == pytest.approx(found, abs=1e-4)  # the same rows, none of them twice
    ragged = Dataset.from_dict({"input_ids": [[3, 4], [5]] * 8})
    with pytest.raises(DataError, match="have 1 and 2 tokens"):
        tiny_trainer(tmp_path / "d", **options | dict(ptx_dataset=ragged)).micro_batch(0)


# Adapters.


def lora():
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], r=2, lora_dropout=0.3)


def test_the_reference_of_new_adapters_is_the_policy_without_them(tmp_path):
    trainer = tiny_trainer(tmp_path, peft_config=lora())
    assert trainer.reference.model is None
    start = {name: weight.clone() for name, weight in trainer.model.named_parameters() if not weight.requires_grad}
    trainer.train()
    kl = history(trainer, "objective/kl")
    assert kl[0] == pytest.approx(0, abs=1e-5) and kl[-1] != pytest.approx(0, abs=1e-5)
    for name, weight in trainer.model.named_parameters():
        assert name not in start or torch.equal(weight, start[name])


def test_the_reference_of_trained_adapters_is_a_copy_with_them(tmp_path):
    from peft import get_peft_model

    policy = get_peft_model(tiny_policy(), lora())
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    trainer = trained(tmp_path, policy=policy)
    assert trainer.reference.model is not None
    assert history(trainer, "objective/kl")[0] == pytest.approx(0, abs=1e-5)


def test_evaluating_the_reference_leaves_the_adapters_at_work(tmp_path):
    """Also in bfloat16, where the policy is scored again between calls of the reference."""
    trainer = trained(tmp_path, peft_config=lora(), eval_dataset=tiny_prompts(8), bf16=True)
    before = trainer.evaluate()
    found = evaluate_reference(trainer, trainer.eval_dataset)
    assert found["kl"] == 0 and before["eval_kl"] != 0
    assert trainer.evaluate() == before


def test_transformers_sampling_leaves_no_settings_in_the_model_under_adapters(tmp_path):
    trainer = trained(tmp_path, peft_config=lora(), rollout_backend="generate")
    assert trainer.model.policy.base_model.model.generation_config.max_new_tokens is None


def test_virtual_tokens_are_refused(tmp_path):
    from peft import PromptTuningConfig

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(ValueError, match="'default' is PROMPT_TUNING, whose virtual tokens"):
        tiny_trainer(tmp_path, peft_config=config)


# Checkpoints.


def resume(folder, step, **changes):
    trainer = tiny_trainer(folder, save_strategy="steps", save_steps=1, **changes)
    trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
    return trainer


@pytest.mark.parametrize("separate", [False, True])
def test_a_resumed_run_is_the_unbroken_one_from_any_step(tmp_path, separate):
    """Also in the middle of a rollout, whose experience lies in the checkpoint; with adaptive KL and running scores."""
    options = dict(kl_target=0.5, kl_horizon=50, score_norm="running", gradient_accumulation_steps=2)
    options |= dict(per_device_train_batch_size=2)

    def more():
        return options | ({"value_model": value_model(tiny_policy())} if separate else {})

    whole = tiny_trainer(tmp_path, save_strategy="steps", save_steps=1, **more())
    whole.train()
    for step in (1, 4, 6):
        again = resume(tmp_path, step, **more())
        assert again.state.global_step == 8
        assert torch.equal(weights(again), weights(whole)), step
        names = ("loss", "objective/kl", "objective/kl_coef", "val/ratio")
        assert all(history(again, name) == history(whole, name) for name in names)


def test_a_checkpoint_of_other_minibatches_is_refused(tmp_path):
    trained(tmp_path, save_strategy="steps", save_steps=4)
    with pytest.raises(CheckpointError, match="of a run with 4 updates per rollout, and here are 2: keep"):
        resume(tmp_path, 4, per_device_train_batch_size=8)


def test_what_a_checkpoint_holds_loads_elsewhere(tmp_path):
    policy = tiny_policy("hft_gpt")
    trainer = trained(tmp_path, policy=policy, value_model=value_model(policy), save_strategy="steps", save_steps=8)
    folder = tmp_path / "checkpoint-8"
    ids = torch.tensor([[3, 4, 5]])
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.testing.assert_close(loaded(ids).logits, trainer.model.policy.eval()(ids).logits)
    critic = AutoModelForSequenceClassification.from_pretrained(folder / "value_model").eval()
    torch.testing.assert_close(critic(ids).logits, trainer.model.value_model.eval()(ids).logits)
    assert not (folder / "ppo" / "experience.safetensors").exists()  # the rollout is used up


def test_the_best_checkpoint_by_the_reward_of_held_out_prompts(tmp_path):
    recorder = Recorder()
    trainer = tiny_trainer(
        tmp_path, eval_dataset=tiny_prompts(6), eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2,
        load_best_model_at_end=True, metric_for_best_model="eval_reward", greater_is_better=True, callbacks=[recorder],
        num_sample_completions=3,
    )  # fmt: skip
    trainer.train()
    rewards = history(trainer, "eval_reward")
    assert len(rewards) == 4 == recorder.events.count("evaluate")
    assert trainer.state.best_metric == max(rewards)
    assert trainer.evaluate()["eval_reward"] == pytest.approx(max(rewards))
    assert len(trainer.samples) == 3 and set(trainer.samples[0]) == {"prompt", "completion", "reward"}
    entry = next(entry for entry in trainer.state.log_history if "eval_reward" in entry)
    assert entry["eval_rlhf_reward"] == pytest.approx(entry["eval_reward"] - 0.05 * entry["eval_kl"], abs=1e-4)
    assert 1 <= entry["eval_length"] <= 6 and 0 <= entry["eval_ended"] <= 1


def test_several_sets_to_evaluate_on_and_one_given_later(tmp_path):
    both = {"short": tiny_prompts(4), "long": tiny_prompts(6)}
    trainer = tiny_trainer(tmp_path, eval_dataset=both)
    found = trainer.evaluate()
    alone = trainer.evaluate(["w1 w2", "w3"])
    assert {"eval_short_reward", "eval_long_reward"} < found.keys() and "eval_reward" in alone
    assert [sample["prompt"] for sample in trainer.samples] == ["w1 w2", "w3"]
    again = tiny_trainer(tmp_path, eval_dataset=tiny_prompts(6)).evaluate()
    assert again["eval_reward"] == found["eval_long_reward"]


# Texts and conversations.


def chat_tokenizer():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ 'w16 ' if m.role == 'user' else 'w15 ' }}{{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}w15{% endif %}"
    )
    return tokenizer


def test_conversations_from_template_to_reward_model(tmp_path):
    """The policy reads its chat template; the reward model, with another tokenizer, the same messages in its own form."""
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["[?]", "[.]", *"w0123456789 HAumansit:"])}))
    inner.model.unk_token, inner.pre_tokenizer = "[?]", pre_tokenizers.Split("", "isolated")
    own = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[?]", eos_token="[.]", pad_token="[?]")
    torch.manual_seed(0)
    sizes = dict(vocab_size=len(own), n_layer=1, n_embd=16, n_head=2, n_positions=128, num_labels=1, pad_token_id=0)
    model = GPT2ForSequenceClassification(GPT2Config(**sizes))
    model.save_pretrained(tmp_path / "judge")
    own.save_pretrained(tmp_path / "judge")
    reward, seen = load_reward(str(tmp_path / "judge"), batch_size=3), []

    def watch(prompts, completions, **columns):
        seen.extend(zip(prompts, completions, strict=True))
        return [0.0] * len(prompts)

    prompts = [{"prompt": [{"role": "user", "content": f"w{n} w2"}]} for n in range(8)]
    PPOTrainer(
        tiny_policy(), tiny_args(tmp_path, total_episodes=8), [reward, watch], prompts, chat_tokenizer()
    ).train()
    trainer = PPOTrainer(tiny_policy(), tiny_args(tmp_path), [reward, watch], prompts, chat_tokenizer())
    seen.clear()
    trainer.micro_batch(0)
    assert trainer.train_dataset[3]["prompt_ids"] == [19, 6, 5, 18]
    assert seen[0][1][0]["role"] == "assistant"
    texts = [(f"\n\nHuman: {p[0]['content']}\n\nAssistant:", f" {c[0]['content']}") for p, c in seen]
    expected = RewardModel(model, own)([p for p, _ in texts], [c for _, c in texts])
    assert trainer.rollout_report["rewards/judge"] == pytest.approx(float(expected.mean()), abs=1e-6)
    empty = reward([prompts[0]["prompt"], "w1"], [[{"role": "assistant", "content": ""}], ""])
    assert empty.isfinite().all()


# What cannot work is refused before anything is sampled.


def test_sizes_that_do_not_divide_name_those_that_would(tmp_path):
    with pytest.raises(ValueError, match="8 is no multiple of the minibatch of 3 .*set rollout_batch_size to 6 or 9"):
        tiny_trainer(tmp_path, per_device_train_batch_size=3)
    with pytest.raises(DataError, match="5 training prompts, and a rollout takes 8.*at most 5"):
        tiny_trainer(tmp_path, prompts=tiny_prompts(5))
    with pytest.raises(ValueError, match="response_length 32 leaves no room.*reads 32 tokens"):
        tiny_trainer(tmp_path, response_length=32)
    with pytest.raises(DataError, match="row 1 .*has 29 tokens, and the limit is 26"):
        tiny_trainer(tmp_path, prompts=[{"prompt": "w1"}, {"prompt": "w1 " * 29}])
    stream = tiny_prompts().to_iterable_dataset()
    with pytest.raises(DataError, match="cannot be a stream: take as many"):
        tiny_trainer(tmp_path, prompts=stream)
    with pytest.raises(DataError, match="has the splits train: give one of them"):
        tiny_trainer(tmp_path, prompts=DatasetDict(train=tiny_prompts()))


@pytest.mark.parametrize(("on_long", "number", "longest"), [("skip", 8, 1), ("truncate", 9, 26)])
def test_prompts_longer_than_the_context(tmp_path, on_long, number, longest):
    prompts = [{"prompt": "w1"}] * 8 + [{"prompt": "w2 " * 28 + "w3"}]
    trainer = trained(tmp_path, prompts=prompts, on_long_prompt=on_long)
    rows = trainer.train_dataset["prompt_ids"]
    assert len(rows) == number and max(map(len, rows)) == longest
    assert on_long == "skip" or rows[8][-1] == 6  # the beginning is cut


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(temperature=0.0), "temperature must be above 0, got 0.0"),
        (dict(lam=1.5), r"lam must be in \[0, 1\], got 1.5"),
        (dict(num_ppo_epochs=0), "num_ppo_epochs must be 1 or more, got 0"),
        (dict(kl_coef=-1.0), "kl_coef must be 0 or more"),
        (dict(kl_coef=0.0, kl_target=6.0), "so that 0 stays 0: give a kl_coef above 0"),
        (dict(ptx_batch_size=0), "ptx_batch_size must be 1 or more, got 0"),
        (dict(max_prompt_length=0), "max_prompt_length must be 1 or more, got 0"),
        (dict(total_episodes=0), "total_episodes must be 1 or more, got 0"),
        (dict(value_learning_rate=-1e-3), "value_learning_rate must be 0 or more"),
        (dict(kl_estimator="k2"), "kl_estimator must be one of .*got 'k2'"),
        (dict(missing_eos_penalty=1.0, missing_eos_score=-1.0), "exclude each other"),
        (dict(ptx_coef=1.0), "there is no ptx_dataset"),
        (dict(cache_implementation="static"), "is read by rollout_backend generate, and this is native"),
        (dict(reward_weights=[1.0, 2.0]), "2 reward_weights for 1 reward functions"),
        (dict(stop_token_ids=[99]), r"\[99\] are outside of the vocabulary of 20"),
    ],
)
def test_settings_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_trainer(tmp_path, **changes)


def test_without_an_end_token_or_a_reward(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no token ends a response"):
        PPOTrainer(tiny_policy(), tiny_args(tmp_path), count_low_words, tiny_prompts(), tokenizer)
    with pytest.raises(ValueError, match="reward_funcs is empty"):
        tiny_trainer(tmp_path, reward=[])
    with pytest.raises(DataError, match="no prompts to evaluate on"):
        tiny_trainer(tmp_path).evaluate()
