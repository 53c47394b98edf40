"""Direct preference optimisation from beginning to end, in process: what it learns, leaves and refuses, and that it resumes."""

import hashlib
import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from hftoolkit.errors import CheckpointError, DataError, MachineError, RunInterruptedError
from hftoolkit.recipes import dpo
from hftoolkit.training.preference_tuning import PairEvaluation, preference_baselines

NAMES = ("Anna", "Tom", "Ben", "Olivia", "Peter", "Xavier")
FEW = dict(max_steps=12, eval_steps=6, save_steps=6, logging_steps=4, warmup_steps=2, max_length=64)
FEW |= dict(per_device_train_batch_size=4, tokenizer_vocab_size=400)


OWN = dict(
    bf16="false", activation_checkpointing="false", eval_strategy="steps", eval_on_start="true", learning_rate=1e-3
)


def run(folder, **options):
    """The recipe with the tiny configuration, or without one where a model is given."""
    words = ["--use_cpu", "true", "--output_dir", str(folder)]
    if "model_name_or_path" in options:
        options = OWN | {key: value for key, value in options.items() if key != "tokenizer_vocab_size"}
    else:
        words += ["--config", "gpt/dpo_tiny"]
    for key, value in options.items():
        words += [f"--{key}", str(value)]
    return dpo.main(*dpo.parse(words))


def question(number):
    return f"\n\nHuman: Is {NAMES[number % 6]} here on day {number}?\n\nAssistant:"


@pytest.fixture(scope="module")
def polite(tmp_path_factory):
    """HH-RLHF's form: people prefer to be answered with thanks, in about twice as many characters."""
    rows = [
        {
            "chosen": f"{question(n)} Thank you for the question, {NAMES[n % 5]}.",
            "rejected": f"{question(n)} Go away, {NAMES[n % 4]}.",
        }
        for n in range(150)
    ]
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def built(tmp_path, monkeypatch, polite):
    """The trainer that a run would train, from its options."""
    monkeypatch.setattr("hftoolkit.run.run_training", lambda trainer, **options: trainer)
    return lambda **options: run(tmp_path / "none", **(dict(dataset=polite) | FEW | options))


@pytest.fixture(scope="module")
def finished(polite, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "dpo"
    return folder, run(folder, dataset=polite, **FEW | dict(max_steps=30, eval_steps=30, save_steps=30))


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_it_learns_what_people_prefer(finished):
    """Nearly every held-out pair, where before the training chance and the likelihood of shorter answers decide."""
    _, results = finished
    baselines = results["baselines"]
    assert baselines["before_training"]["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert baselines["before_training"]["eval_rewards/accuracies"] == 0.5
    assert baselines["reference_likelihood"]["eval_rewards/accuracies"] < 0.1  # of a new model: the shorter answer
    assert "eval_rewards/accuracies" in baselines["reference_mean_likelihood"]
    assert results["eval_rewards/accuracies"] > 0.9 and results["eval_rewards/margins"] > 1
    assert results["eval_loss"] < math.log(2) / 2


def test_what_it_leaves(finished):
    folder, results = finished
    assert json.loads((folder / "all_results.json").read_text()) == results
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done" and record["data"]["validation"]["token_pairs"] == 15
    card = (folder / "README.md").read_text()
    assert "direct preference optimisation" in card and "β = 0.1" in card and "reference likelihood" in card
    assert "arxiv.org/abs/2305.18290" in card and "pipeline_tag: text-generation" in card


def test_the_loss_is_equation_7(built, finished, polite):
    """Computed again, pair by pair, without TRL: on answers with their end, against the model before the training."""
    trainer = built(model_name_or_path=finished[0], beta=0.3, **{"per_device_eval_batch_size": 4})
    reference = AutoModelForCausalLM.from_pretrained(finished[0]).eval()
    policy = AutoModelForCausalLM.from_pretrained(finished[0]).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        moved = dict(trainer.model.named_parameters())
        for name, weight in policy.named_parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
            moved[name].copy_(weight)
    tokenizer, losses, right, margins = AutoTokenizer.from_pretrained(finished[0]), [], [], []

    def score(model, prompt, answer):
        start = tokenizer(prompt)["input_ids"]
        ids = torch.tensor([start + tokenizer(answer)["input_ids"] + [tokenizer.eos_token_id]])
        with torch.no_grad():
            found = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1).gather(1, ids[0, 1:, None])
        return float(found[len(start) - 1 :].sum())

    for row in map(json.loads, polite.read_text().splitlines()[-15:]):
        prompt = row["chosen"][: row["chosen"].index("Assistant:") + len("Assistant:")]
        answers = row["chosen"][len(prompt) :], row["rejected"][len(prompt) :]
        better, worse = (0.3 * (score(policy, prompt, a) - score(reference, prompt, a)) for a in answers)
        losses.append(math.log1p(math.exp(worse - better)))
        margins.append(better - worse)
        right.append(better > worse)
    found = trainer.evaluate()
    assert found["eval_loss"] == pytest.approx(sum(losses) / 15, rel=1e-4)
    assert found["eval_rewards/margins"] == pytest.approx(sum(margins) / 15, rel=1e-3, abs=1e-4)
    assert found["eval_rewards/accuracies"] == pytest.approx(sum(right) / 15)
    assert found["eval_loss"] != pytest.approx(math.log(2), rel=1e-3)
    baselines = preference_baselines(trainer)["baselines"]  # of the reference, whatever the policy has become
    scores = [[score(reference, r["chosen"][: r["chosen"].index("Assistant:") + 10], r[s][r["chosen"].index("Assistant:") + 10 :])
               for s in ("chosen", "rejected")] for r in map(json.loads, polite.read_text().splitlines()[-15:])]  # fmt: skip
    share = sum(better > worse for better, worse in scores) / 15
    assert baselines["reference_likelihood"]["eval_rewards/accuracies"] == pytest.approx(share)


def test_the_evaluation_does_not_depend_on_the_batches(built, finished):
    """15 pairs in batches of 2, the last of 1: a mean of means would weigh that one twice."""
    found = []
    for size in (2, 15):
        trainer = built(model_name_or_path=finished[0], per_device_eval_batch_size=size)
        with torch.no_grad():
            trainer.model.get_input_embeddings().weight.mul_(1.5)
        found.append(trainer.evaluate())
    for name in ("eval_loss", "eval_rewards/margins", "eval_rewards/accuracies", "eval_logps/chosen"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-5), name
    whole = [entry for entry in found[0] if entry.startswith("eval_rewards/")]
    assert len(whole) == 4 and found[0]["eval_rewards/chosen"] != 0


@pytest.mark.parametrize("adaptation", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_an_interrupted_run_ends_with_the_same_weights_and_reports(tmp_path, monkeypatch, polite, adaptation):
    options = FEW | dict(dataset=polite, adaptation=adaptation, save_strategy="steps", learning_rate=1e-3)
    run(tmp_path / "unbroken", **options)
    step = PairEvaluation.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 9:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(PairEvaluation, "training_step", interrupted)
    with pytest.raises((KeyboardInterrupt, RunInterruptedError)):
        run(tmp_path / "broken", **options)
    monkeypatch.undo()
    results = run(tmp_path / "broken", **options)
    assert weights(tmp_path / "broken") == weights(tmp_path / "unbroken")
    assert results == json.loads((tmp_path / "unbroken/all_results.json").read_text())
    histories = []
    for folder in ("broken", "unbroken"):
        state = json.loads((tmp_path / folder / "checkpoint-12/trainer_state.json").read_text())
        histories.append([{k: v for k, v in entry.items() if not k.endswith(("_runtime", "_per_second"))}
                          for entry in state["log_history"]])  # fmt: skip
    assert not [entry for entry in histories[0] if entry not in histories[1]]  # what eval_on_start repeats is the same
    assert not [entry for entry in histories[1] if entry not in histories[0]]
    assert {"rewards/margins", "loss", "num_tokens"} <= histories[0][1].keys()


def test_lora_has_its_base_as_the_reference(tmp_path, built, finished, polite):
    """No second adapter, no copy; the merged model that is left differs from the base, the reference does not."""
    trainer = built(model_name_or_path=finished[0], adaptation="lora")
    trainer.model.train()  # TRL asks the reference in this mode, so that dropout would change it
    assert list(trainer.model.peft_config) == ["default"] and trainer.ref_model is None
    before = trainer.reference_margins(trainer.eval_dataset)[0]
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight += 0.1
    assert torch.equal(trainer.reference_margins(trainer.eval_dataset)[0], before)
    assert trainer.evaluate()["eval_rewards/chosen"] != 0
    noisy = built(model_name_or_path=finished[0], adaptation="lora", disable_dropout="false")
    noisy.model.train()
    assert not torch.equal(noisy.reference_margins(noisy.eval_dataset)[0], before)  # so the test would notice
    full = built(model_name_or_path=finished[0])
    assert torch.allclose(full.reference_margins(full.eval_dataset)[0], before, atol=1e-4)


def test_lora_leaves_a_merged_model(tmp_path, finished, polite):
    results = run(tmp_path / "run", model_name_or_path=finished[0], dataset=polite, adaptation="lora", **FEW)
    assert (tmp_path / "run/adapter/adapter_config.json").is_file() and not (tmp_path / "run/ref").exists()
    merged, base = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (tmp_path / "run", finished[0]))
    assert merged.state_dict().keys() == base.state_dict().keys()
    ids = torch.tensor([[5, 6, 7]])
    assert not torch.allclose(merged(ids).logits, base(ids).logits, atol=1e-3)
    assert results["eval_rewards/accuracies"] > 0.9


def test_rankings_and_the_judge_of_the_microworld(tmp_path):
    options = FEW | dict(max_steps=2, eval_steps=2, warmup_steps=0, max_length=192, builtin_examples=30)
    results = run(tmp_path / "run", dataset="builtin:rankings", judged_questions=4, **options)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["data"]["train"]["prompts"] == 30 and record["data"]["train"]["token_pairs"] == 90
    shares = [results[f"eval_{kind}_answers"] for kind in ("true", "false", "malformed")]
    assert sum(shares) == 1 and results["baselines"]["before_training"]["eval_malformed_answers"] == 1


def test_a_stock_model_with_a_reference_that_is_asked_once(tmp_path, finished, polite):
    tokenizer = AutoTokenizer.from_pretrained(finished[0])
    sizes = dict(n_embd=16, n_layer=1, n_head=2, n_positions=64, vocab_size=len(tokenizer), eos_token_id=0)
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path / "stock")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "stock")
    words = ["--model_name_or_path", tmp_path / "stock", "--dataset", polite, "--max_steps", 2, "--max_length", 64]
    words += ["--bf16", "false", "--use_cpu", "true", "--eval_strategy", "steps", "--precompute_ref_log_probs", "true"]
    results = dpo.main(*dpo.parse(list(map(str, [*words, "--output_dir", tmp_path / "run"]))))
    assert "eval_loss" not in results["baselines"]["before_training"]  # it was not asked for
    assert results["eval_loss"] == pytest.approx(math.log(2), abs=1e-2)
    assert 0 <= results["baselines"]["reference_likelihood"]["eval_rewards/accuracies"] <= 1
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"] and config["use_cache"] is True


def test_nothing_is_sent_anywhere(built, monkeypatch):
    import trl.trainer.base_trainer as base

    from hftoolkit.training.trl_trainers import TrlReports

    sent = []
    monkeypatch.setattr(base, "send_telemetry", lambda *args, **options: sent.append(options))
    monkeypatch.delenv("CI", raising=False)
    built()
    assert not sent
    monkeypatch.delattr(TrlReports, "_send_telemetry")
    built()
    assert sent  # so the test would notice


@pytest.mark.parametrize(
    "options, error, message",
    [
        (dict(adaptation="frozen"), DataError, "take full or lora"),
        (dict(max_length=8), DataError, "no answer leaves room for its prompt within max_length 8"),
        (dict(loss_type="exo_pair"), DataError, "TRL refuses these settings: Label smoothing"),
        (dict(dataset="FILE"), DataError, r"train.jsonl:2: .* --on_bad_row skip"),
    ],
)
def test_what_cannot_be(tmp_path, built, options, error, message):
    if "dataset" in options:
        good = {"prompt": "a", "chosen": "b", "rejected": "c"}
        (tmp_path / "train.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(good | {"rejected": "b"}))
        options = options | {"dataset": tmp_path / "train.jsonl"}
    with pytest.raises(error, match=message):
        built(**options)


def test_an_encoder_decoder_has_another_place(tmp_path):
    words = ["--architecture", "t5", "--tokenizer", "byte_bpe", "--use_cpu", "true", "--output_dir", tmp_path / "none"]
    with pytest.raises(CheckpointError, match="take gpt, or fine-tune it with recipes/finetune_t5.py"):
        dpo.main(*dpo.parse(list(map(str, words))))


def test_a_model_whose_logits_are_others(built, monkeypatch):
    """TRL would train the output layer's logits of the last states, which are not this model's."""
    from hftoolkit.models.modeling_gpt import HftGptForCausalLM

    plain = HftGptForCausalLM.forward

    def scaled(self, *args, **kwargs):
        output = plain(self, *args, **kwargs)
        output.logits = None if output.logits is None else 3 * output.logits
        return output

    scaled.__signature__ = __import__("inspect").signature(plain)
    monkeypatch.setattr(HftGptForCausalLM, "forward", scaled)
    with pytest.raises(CheckpointError, match="would train another model"):
        built(**{"model_config.initializer_range": 0.5})


def test_without_trl(built, monkeypatch):
    import hftoolkit.training.trl_trainers as training

    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(
        MachineError, match="direct preference optimisation needs the package trl; install it: pip install"
    ):
        built()
