"""PPOTrainer: the mathematics against a transcription, and each fault that its predecessors had."""

import math

import pytest
import torch
from tiny_ppo import (
    count_low_words,
    history,
    tiny_args,
    tiny_policy,
    tiny_prompts,
    tiny_tokenizer,
    tiny_trainer,
    weights,
)
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback

from hftoolkit.errors import DataError
from hftoolkit.rl.ppo_trainer import PPOTrainer


def value_model(policy, seed=5):
    config = type(policy.config)(**policy.config.to_dict() | {"num_labels": 1})
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(config)


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


# Rewards.


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
        return [float(text.startswith(word)) for text, word in zip(completions, wanted, strict=True)]

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
    assert history(trainer, "objective/scores") == [1] * 8


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
    assert trainer.state.global_step == 5  # the first rollout is at the reference; after the second, one more update
    assert "max_kl is 0.001" in trainer.stopped_by


def test_pretraining_beside_it(tmp_path):
    """PPO-ptx: the gradient is that of PPO plus the coefficient times that of the language model's mean loss."""
    rows = torch.randint(3, 20, (64, 5), generator=torch.Generator().manual_seed(0)).tolist()
    from datasets import Dataset

    text = Dataset.from_dict({"input_ids": rows})
    options = dict(ptx_dataset=text, ptx_coef=3.0, ptx_batch_size=2)
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(temperature=0.0), "temperature must be above 0, got 0.0"),
        (dict(lam=1.5), r"lam must be in \[0, 1\], got 1.5"),
        (dict(num_ppo_epochs=0), "num_ppo_epochs must be 1 or more, got 0"),
        (dict(kl_coef=-1.0), "kl_coef must be 0 or more"),
        (dict(kl_estimator="k2"), "kl_estimator must be one of .*got 'k2'"),
        (dict(missing_eos_penalty=1.0, missing_eos_score=-1.0), "exclude each other"),
        (dict(ptx_coef=1.0), "there is no ptx_dataset"),
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
