"""Group relative policy optimisation from beginning to end, in process: what is learned, left and refused, and resuming."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from hftoolkit.data.microworld import question_prompts
from hftoolkit.errors import CheckpointError, DataError, RunInterruptedError
from hftoolkit.recipes import grpo
from hftoolkit.tokenization import train_tokenizer
from hftoolkit.training.group_policy import GroupPolicy

FEW = dict(max_steps=2, eval_steps=2, save_steps=2, logging_steps=1, builtin_examples=6, max_eval_prompts=2)
FEW |= dict(per_device_train_batch_size=8, per_device_eval_batch_size=8, max_completion_length=6)
OWN = dict(bf16="false", activation_checkpointing="false", eval_strategy="steps", eval_on_start="true", beta=0.1)
OWN |= dict(rewards="brief", num_generations=4, disable_dropout="true", learning_rate=1e-3, loss_type="grpo")


def run(folder, **options):
    """The recipe with the tiny configuration, or without one where a model is given."""
    words = ["--use_cpu", "true", "--output_dir", str(folder)]
    if "model_name_or_path" in options:
        options = OWN | options
    else:
        words += ["--config", "gpt/grpo_tiny"]
    for key, value in options.items():
        words += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
    return grpo.main(*grpo.parse(words))


@pytest.fixture
def built(tmp_path, monkeypatch):
    """The trainer that a run would train, from its options."""
    monkeypatch.setattr("hftoolkit.run.run_training", lambda trainer, **options: trainer)
    return lambda **options: run(tmp_path / "none", **(FEW | options))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "grpo"
    return folder, run(folder, max_steps=28, eval_steps=28, save_steps=28)


def test_the_reward_rises(finished):
    """Answers half as long as allowed or less, and the reward of one of them at least; before, nearly all are cut."""
    _, results = finished
    before = results["baselines"]["before_training"]
    assert before["eval_completions/clipped_ratio"] > 0.8 and before["eval_reward"] < 0.15
    assert results["eval_completions/mean_length"] < 8 < before["eval_completions/mean_length"]
    assert results["eval_reward"] > 3 * before["eval_reward"]
    assert results["eval_kl"] > 0.1 and results["eval_rewards/brief/mean"] == pytest.approx(results["eval_reward"])


def test_what_it_leaves(finished):
    folder, results = finished
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done" and record["data"]["train"]["prompts"] == 400
    assert json.loads((folder / "all_results.json").read_text()) == results
    card = (folder / "README.md").read_text()
    assert "group relative policy" in card and "Rewards: brief. A penalty on the KL" in card
    assert "before training" in card and "arxiv.org/abs/2402.03300" in card
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.generate(**tokenizer("The day", return_tensors="pt"), max_new_tokens=3).shape[0] == 1


@pytest.mark.parametrize("of_the_paper", [True, False])
def test_the_loss_is_equation_3(built, finished, of_the_paper):
    """Value and gradient again, answer by answer and without padding; the policy is no longer the reference.

    TRL's own default has the same value and another gradient, so the test notices it.
    """
    beta = 0.3
    options = dict(max_completion_length=12, use_bias_correction_kl=str(not of_the_paper).lower())
    trainer = built(model_name_or_path=finished[0], beta=beta, **options)
    reference = AutoModelForCausalLM.from_pretrained(finished[0]).eval()
    policy = AutoModelForCausalLM.from_pretrained(finished[0]).eval()
    generator, moved = torch.Generator().manual_seed(0), dict(trainer.model.named_parameters())
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            weight += 0.03 * torch.randn(weight.shape, generator=generator)
            moved[name].copy_(weight)
    rows = [trainer.train_dataset[number] for number in (0, 0, 0, 0, 1, 1, 1, 1)]
    trainer.model.train()
    inputs = trainer._generate_and_score_completions([dict(row) for row in rows])
    tokenizer, answers, rewards = trainer.processing_class, [], []
    for row, ids, mask in zip(rows, inputs["completion_ids"], inputs["completion_mask"], strict=True):
        prompt, answer = tokenizer(row["prompt"])["input_ids"], ids[mask.bool()].tolist()
        whole, scores = torch.tensor([prompt + answer]), []
        for model in (policy, reference):
            found = model(input_ids=whole).logits[0, :-1].double().log_softmax(-1)
            scores.append(found.gather(1, whole[0, 1:, None])[len(prompt) - 1 :, 0])
        answers.append((scores[0], scores[1].detach()))
        rewards.append(2.0 ** (-len(tokenizer.decode(answer, skip_special_tokens=True)) / 10))
    groups = torch.tensor(rewards, dtype=torch.float64).view(2, 4)
    advantages = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
    assert torch.allclose(inputs["advantages"].double(), advantages, atol=1e-4)
    losses, divergences = [], []
    for advantage, (new, old) in zip(advantages, answers, strict=True):
        ratio, kl = (new - new.detach()).exp(), (old - new).exp() - (old - new) - 1
        losses.append((beta * kl - ratio * advantage).mean())
        divergences.append(float(kl.mean()))
    expected = torch.stack(losses).mean()
    expected.backward()
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    assert float(loss) == pytest.approx(float(expected), rel=1e-3)
    assert beta * sum(divergences) / 8 > 1e-3  # so the KL term is more than the tolerance
    ours, theirs = (model.get_input_embeddings().weight.grad for model in (policy, trainer.model))
    assert (float((ours - theirs).norm() / ours.norm()) < 1e-3) == of_the_paper


def history(folder):
    state = json.loads((folder / "checkpoint-12/trainer_state.json").read_text())
    timed = ("_runtime", "_per_second", "step_time")
    return [{k: v for k, v in entry.items() if not k.endswith(timed)} for entry in state["log_history"]]


@pytest.mark.parametrize("adaptation", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_an_interrupted_run_ends_with_the_same_weights_and_reports(tmp_path, monkeypatch, adaptation):
    """Stopped in the second pass over the prompts, between two updates of one rollout; without that rollout it differs."""
    options = FEW | dict(max_steps=12, eval_steps=3, save_steps=3, num_iterations=2, adaptation=adaptation)
    run(tmp_path / "whole", **options)
    step = GroupPolicy.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 10:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    for kind in ("broken", "forgetful"):
        monkeypatch.setattr(GroupPolicy, "training_step", interrupted)
        with pytest.raises((KeyboardInterrupt, RunInterruptedError)):
            run(tmp_path / kind, **options)
        monkeypatch.undo()
        assert (tmp_path / kind / "checkpoint-9/grpo/responses-0.safetensors").is_file()
        if kind == "forgetful":
            monkeypatch.setattr(GroupPolicy, "_progress_files", ("none", "none"))
        run(tmp_path / kind, **options)
    weights = {kind: (tmp_path / kind / "model.safetensors").read_bytes() for kind in ("whole", "broken", "forgetful")}
    assert weights["broken"] == weights["whole"] != weights["forgetful"]
    ours, theirs = history(tmp_path / "broken"), history(tmp_path / "whole")
    assert not [entry for entry in ours if entry not in theirs]  # what eval_on_start repeats is the same
    assert not [entry for entry in theirs if entry not in ours]


def test_a_rollout_goes_to_the_device_of_a_process(built, tmp_path, monkeypatch):
    """`cpu:0`, as a process of a distributed run calls it, is a name that safetensors does not know."""
    trainer = built()
    (tmp_path / "grpo").mkdir()
    (tmp_path / "grpo/state-0.json").write_text('{"step": 3}')
    save_file({"0.advantages": torch.ones(2)}, tmp_path / "grpo/responses-0.safetensors")
    monkeypatch.setattr(type(trainer.args), "device", torch.device("cpu", 0))
    trainer._load_optimizer_and_scheduler(str(tmp_path))
    assert trainer._step == 3 and trainer._buffered_inputs[0]["advantages"].tolist() == [1, 1]


def test_an_evaluation_changes_no_random_numbers(built, finished):
    trainer = built(model_name_or_path=finished[0])
    state = torch.get_rng_state()
    first, second = trainer.evaluate(), trainer.evaluate()
    assert torch.equal(torch.get_rng_state(), state)
    assert first["eval_reward"] == second["eval_reward"] and 0 < first["eval_reward"] < 1


def test_low_rank_updates_a_reward_of_its_own_and_a_file_of_prompts(tmp_path, finished):
    rows = [{"prompt": row["prompt"], "number": n} for n, row in enumerate(question_prompts(30))]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.py").write_text(
        "def vowels(completions, number):\n"
        "    assert len(number) == len(completions)\n"
        "    return [sum(c in 'aeiou' for c in text) / 20 for text in completions]\n"
    )
    options = dict(dataset=tmp_path / "prompts.jsonl", rewards=[f"{tmp_path / 'mine.py'}:vowels", "brief"])
    options |= dict(reward_weights=[2.0, 0.5], adaptation="lora", learning_rate=1e-2, builtin_examples=960)
    results = run(tmp_path / "run", model_name_or_path=finished[0], **FEW | options)
    parts = 2 * results["eval_rewards/vowels/mean"] + 0.5 * results["eval_rewards/brief/mean"]
    assert results["eval_reward"] == pytest.approx(parts, rel=1e-5)
    merged, base = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (tmp_path / "run", finished[0]))
    assert (tmp_path / "run/adapter/adapter_config.json").is_file() and not (tmp_path / "run/ref").exists()
    assert merged.state_dict().keys() == base.state_dict().keys()
    assert not torch.allclose(merged(torch.tensor([[5, 6]])).logits, base(torch.tensor([[5, 6]])).logits)


def test_a_reward_model_with_a_tokenizer_of_its_own_and_conversations(tmp_path, finished):
    """A stock model that reads left padding rightly, with a chat template; the rewards come from bytes."""
    tokenizer = AutoTokenizer.from_pretrained(finished[0])
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=len(tokenizer))).save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    other = train_tokenizer("byte", ["a text"], vocab_size=300)
    tiny = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=len(other), num_labels=1, pad_token_id=0)
    AutoModelForSequenceClassification.from_config(tiny).save_pretrained(tmp_path / "rewarding")
    other.save_pretrained(tmp_path / "rewarding")
    rows = [{"prompt": [{"role": "user", "content": f"Is day {n} free?" * (1 + n % 2)}]} for n in range(30)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = dict(dataset=tmp_path / "prompts.jsonl", rewards=[tmp_path / "rewarding"])
    results = run(tmp_path / "run", model_name_or_path=tmp_path / "policy", **FEW | options)
    assert math.isfinite(results["eval_rewards/rewarding/mean"]) and results["eval_reward"] != 0
    assert results["baselines"]["before_training"]["eval_reward"] != 0


def test_a_model_that_reads_padding_as_text_is_refused(tmp_path, built, finished):
    tokenizer = AutoTokenizer.from_pretrained(finished[0])
    sizes = dict(n_embd=16, n_layer=1, n_head=2, n_positions=256, vocab_size=len(tokenizer), initializer_range=0.3)
    GPT2LMHeadModel(GPT2Config(**sizes, eos_token_id=0)).save_pretrained(tmp_path / "stock")
    tokenizer.save_pretrained(tmp_path / "stock")
    with pytest.raises(CheckpointError, match="GPT2LMHeadModel computes other probabilities .*hftoolkit convert"):
        built(model_name_or_path=tmp_path / "stock")


def test_rewards_that_are_no_numbers(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def odd(completions, **columns):\n"
        "    return [float('nan') if number % 2 else len(text) for number, text in enumerate(completions)]\n"
    )
    options = FEW | dict(rewards=f"{tmp_path / 'mine.py'}:odd")
    with pytest.raises(DataError, match="4 of 8 responses have no score: odd gave nan .* on_reward_error skip"):
        run(tmp_path / "stop", **options)
    results = run(tmp_path / "skip", **options, on_reward_error="skip")
    assert results["steps"] == 2 and results["eval_reward"] > 1


@pytest.mark.parametrize(
    "options, error, message",
    [
        (dict(rewards="nothing.py:f"), DataError, "there is no file nothing.py"),
        (dict(rewards="no/such/model"), CheckpointError, "no/such/model is no reward model"),
        (dict(adaptation="frozen"), DataError, "take full or lora"),
        (dict(max_completion_length=250), DataError, "row 0 of the train prompts has .* beside a response 6 can be read"),
        (dict(max_completion_length=250, on_long_prompt="skip"), DataError, "no train prompt is left"),
        (dict(use_vllm="true"), DataError, "sampled by transformers' generate"),
        (dict(reward_weights=[1.0, 2.0]), DataError, "TRL refuses these settings: .*reward"),
        (dict(dataset="FILE"), DataError, "is a conversation, and the tokenizer has no chat template"),
    ],
)  # fmt: skip
def test_what_cannot_be(tmp_path, built, options, error, message):
    if "dataset" in options:
        rows = [{"prompt": [{"role": "user", "content": "Hi " * n}]} for n in range(1, 30)]
        (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = options | {"dataset": tmp_path / "prompts.jsonl"}
    with pytest.raises(error, match=message):
        built(**options)


def test_batches_that_hold_no_whole_groups(tmp_path, capsys):
    with pytest.raises((SystemExit, DataError, ValueError)) as stop:
        run(tmp_path / "none", **FEW | dict(num_generations=3, per_device_eval_batch_size=9))
    assert "num_generations (3)" in str(stop.value) + "".join(capsys.readouterr())
