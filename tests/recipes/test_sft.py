"""Supervised fine-tuning from beginning to end, in process: what it learns, scores, leaves and refuses, and that it resumes."""

import hashlib
import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.instructions import load_instructions
from hftoolkit.errors import CheckpointError, DataError, MachineError, RunInterruptedError
from hftoolkit.evaluation.instructions import AnswerJudge, generate_answers, judge_answers
from hftoolkit.recipes import sft
from hftoolkit.training.trl_trainers import TrlReports

FEW = dict(builtin_examples=60, max_steps=12, eval_steps=6, save_steps=6, logging_steps=4, warmup_steps=2)
FEW |= dict(judged_questions=4, max_length=256, tokenizer_vocab_size=600)


def run(folder, **options):
    words = ["--config", "gpt/sft_tiny", "--use_cpu", "true", "--output_dir", str(folder)]
    for key, value in options.items():
        words += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
    return sft.main(*sft.parse(words))


@pytest.fixture
def built(tmp_path, monkeypatch):
    """The trainer that a run would train, from its options."""
    monkeypatch.setattr("hftoolkit.run.run_training", lambda trainer, **options: trainer)
    return lambda **options: run(tmp_path / "none", **(FEW | options))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tiny configuration as it is: (folder, results)."""
    folder = tmp_path_factory.mktemp("runs") / "sft"
    return folder, run(folder)


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def reports(folder):
    """What a run has reported, without what depends on the machine."""
    newest = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    history = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    return [{k: v for k, v in entry.items() if not k.endswith(("_runtime", "_per_second"))} for entry in history]


def test_it_learns(finished):
    """More than which tokens answers have: half a nat below their frequencies, and answers that end."""
    _, results = finished
    baselines = results["baselines"]
    assert results["eval_loss"] < baselines["unigram"]["eval_loss"] - 0.5
    assert results["eval_token_accuracy"] > 2 * baselines["unigram"]["eval_token_accuracy"]
    assert baselines["before_training"]["eval_loss"] > baselines["unigram"]["eval_loss"]
    assert results["eval_endless_answers"] < 0.5 < baselines["before_training"]["eval_endless_answers"]
    assert baselines["most_frequent_answer"]["eval_true_answers"] < 0.1
    assert 0.2 < baselines["guess_of_right_form"]["eval_true_answers"] < 0.4


def test_what_it_leaves(finished):
    folder, results = finished
    assert json.loads((folder / "all_results.json").read_text()) == results
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done" and record["data"]["train"]["examples"] == 400
    assert record["data"]["validation"]["answer_tokens"] == results["eval_answer_tokens"]
    card = (folder / "README.md").read_text()
    assert "Only answers were scored" in card and "guess of right form" in card and "AutoModelForCausalLM" in card
    without_commands = re.sub(r"```.*?```", "", card, flags=re.DOTALL)  # which name the tests that are run
    assert "trl" not in without_commands.split("## Versions")[0].lower().replace("trained", "")
    assert "gpt/sft" not in card or "curves.png" in card


def test_the_loss_is_that_of_the_completions_and_their_end(finished):
    """Computed again, example by example, from the saved model; one wrong token more would be noticed."""
    folder, results = finished
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = load_instructions(ExampleArguments(builtin_examples=400))["validation"]
    nats, number, whole = 0.0, 0, 0.0
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        ids = torch.tensor([prompt + tokenizer(row["completion"])["input_ids"] + [tokenizer.eos_token_id]])
        with torch.no_grad():
            scores = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        nats, whole = nats - float(scores[len(prompt) - 1 :].sum()), whole - float(scores[len(prompt) - 2 :].sum())
        number += ids.shape[1] - len(prompt)
    assert number == results["eval_answer_tokens"]
    assert nats / number == pytest.approx(results["eval_loss"], rel=1e-5)
    assert whole / number != pytest.approx(results["eval_loss"], rel=1e-2)


def test_answers_do_not_depend_on_the_batch(finished):
    folder, results = finished
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = load_instructions(ExampleArguments(builtin_examples=400))["validation"].take(50)
    prompts = [tokenizer(prompt)["input_ids"] for prompt in rows["prompt"]]
    limit = AnswerJudge(rows, tokenizer).max_new_tokens
    texts, endless = generate_answers(model, tokenizer, prompts, batch_size=7, max_new_tokens=limit)
    alone = [generate_answers(model, tokenizer, [prompt], max_new_tokens=limit)[0][0] for prompt in prompts[:6]]
    assert texts[:6] == alone and endless / 50 == results["eval_endless_answers"]
    found = judge_answers(rows["prompt"][:], texts)
    assert found == {name: results[f"eval_{name}"] for name in found}
    assert judge_answers(rows["prompt"][:], rows["completion"][:])["true_answers"] == 1
    too_long = [list(range(5, 5 + model.config.max_position_embeddings - 190)) * 190, prompts[0]]
    texts, endless = generate_answers(model, tokenizer, too_long, max_new_tokens=limit)
    assert texts == ["", alone[0]] and endless >= 1


def test_an_interrupted_run_ends_with_the_same_weights_and_reports(tmp_path, monkeypatch):
    options = FEW | dict(packing="true", neftune_noise_alpha=5, per_device_train_batch_size=1)
    run(tmp_path / "unbroken", **options)
    step = TrlReports.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 9:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(TrlReports, "training_step", interrupted)
    with pytest.raises((KeyboardInterrupt, RunInterruptedError)):
        run(tmp_path / "broken", **options)
    monkeypatch.undo()
    results = run(tmp_path / "broken", **options)
    assert weights(tmp_path / "broken") == weights(tmp_path / "unbroken")
    assert results == json.loads((tmp_path / "unbroken/all_results.json").read_text())
    ours, theirs = reports(tmp_path / "broken"), reports(tmp_path / "unbroken")
    again = [entry for entry in ours if entry not in theirs]
    assert not again, again
    assert theirs[1]["step"] == 4 and {"num_tokens", "mean_token_accuracy", "loss"} <= theirs[1].keys()


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who has the lamp?"},
    {"role": "assistant", "content": "Anna has it."},
    {"role": "user", "content": "And the key?"},
    {"role": "assistant", "content": "Tom, she says."},
]


@pytest.fixture
def conversations(tmp_path):
    (tmp_path / "chat.jsonl").write_text(
        json.dumps({"messages": CONVERSATION}) + "\n" + json.dumps({"messages": CONVERSATION[1:]}) + "\n"
    )
    return tmp_path / "chat.jsonl"


def test_conversations_are_scored_on_the_assistant_alone(built, conversations):
    """Exactly the answers and the token that ends each; the template's new token has an embedding."""
    trainer = built(dataset=conversations, validation_fraction=0, eval_strategy="no", eval_on_start="false")
    tokenizer, rows = trainer.processing_class, trainer.train_dataset
    end = tokenizer.eos_token
    whole = f"<|im_start|>user\nWho has the lamp?{end}\n<|im_start|>assistant\nAnna has it.{end}\n"
    whole += f"<|im_start|>user\nAnd the key?{end}\n<|im_start|>assistant\nTom, she says.{end}\n"
    assert tokenizer.decode(rows[1]["input_ids"]) == whole
    assert tokenizer.decode(rows[0]["input_ids"]) == f"<|im_start|>system\nBe brief.{end}\n{whole}"
    for row in rows:
        scored = [label for label in row["labels"] if label != -100]
        assert tokenizer.decode(scored) == f"Anna has it.{end}Tom, she says.{end}"
        assert all(label in (-100, token) for label, token in zip(row["labels"], row["input_ids"], strict=True))
    new = tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert new == len(tokenizer) - 1 and trainer.model.get_input_embeddings().num_embeddings == len(tokenizer)


def test_all_of_a_conversation_can_be_scored(built, conversations):
    options = dict(validation_fraction=0, eval_strategy="no", eval_on_start="false", assistant_only_loss="false")
    row = built(dataset=conversations, **options).train_dataset[0]
    assert row["labels"] == row["input_ids"]


@pytest.mark.parametrize("chat", ["false", "true"])
@pytest.mark.parametrize("kind", ["hft", "stock"])
def test_packed_rows_have_the_loss_of_single_ones(built, tmp_path, finished, kind, chat):
    """The same nats, right guesses and tokens; with attention across examples they would differ."""
    options = dict(chat=chat, model_name_or_path=finished[0])
    if kind == "stock":
        tokenizer = AutoTokenizer.from_pretrained(finished[0])
        sizes = dict(n_embd=16, n_layer=1, n_head=2, n_positions=256, vocab_size=len(tokenizer), initializer_range=0.2)
        GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path / "stock")
        tokenizer.save_pretrained(tmp_path / "stock")
        options["model_name_or_path"] = tmp_path / "stock"
    (tmp_path / "own.yaml").write_text(
        "builtin_examples: 60\nmax_length: 192\nbf16: false\nactivation_checkpointing: false\neval_strategy: steps\n"
    )
    options |= dict(config=tmp_path / "own.yaml", max_steps=4)

    def trainer(**more):
        words = [word for key, value in (options | more).items() for word in (f"--{key}", str(value))]
        return sft.main(*sft.parse([*words, "--use_cpu", "true", "--output_dir", str(tmp_path / "none")]))

    single, packed = trainer(), trainer(packing="true")
    assert len(packed.eval_dataset) < len(single.eval_dataset)
    totals = packed.answer_totals(packed.eval_dataset)
    assert totals == pytest.approx(single.answer_totals(single.eval_dataset), rel=1e-5)
    collate = packed.data_collator

    def leaking(rows):
        batch = collate(rows)
        return batch | {"position_ids": torch.arange(batch["input_ids"].shape[1]).clamp(max=150)[None]}

    packed.data_collator = leaking
    assert packed.answer_totals(packed.eval_dataset) != pytest.approx(totals, rel=1e-4)


def test_the_evaluation_does_not_depend_on_the_batches(built):
    """Rows of very different length: a mean of means would."""
    small, large = (built(per_device_eval_batch_size=size) for size in (1, 5))
    found = [trainer.evaluate() for trainer in (small, large)]
    assert found[0]["eval_loss"] == pytest.approx(found[1]["eval_loss"], rel=1e-6)
    means = [trainer.answer_totals(small.eval_dataset.select([row])) for trainer in [small] for row in range(12)]
    mean_of_means = sum(nats / tokens for nats, _, tokens in means) / len(means)
    assert found[0]["eval_loss"] != pytest.approx(mean_of_means, rel=1e-6)


def test_accumulated_batches_have_the_gradient_of_a_whole_one(built, tmp_path):
    """Answers of different length: each token counts the same, however the batch is cut."""
    norms, options = [], dict(max_steps=2, logging_steps=1, eval_strategy="no", eval_on_start="false")
    for size in (1, 4):
        accumulated = dict(per_device_train_batch_size=size, gradient_accumulation_steps=4 // size)
        trainer = built(**options, **accumulated, save_strategy="no")
        trainer.train()
        norms.append([entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry])
    assert len(norms[0]) == 2 and norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_lora_of_a_conversation(tmp_path):
    """The run leaves the merged model and the adapter; the new token's embedding has moved, the old ones have not."""
    run(tmp_path / "run", **FEW, chat="true", adaptation="lora", learning_rate=1e-2)
    assert (tmp_path / "run/adapter/adapter_config.json").is_file()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    torch.manual_seed(0)
    embeddings = model.get_input_embeddings().weight
    assert len(embeddings) == len(tokenizer) and model.get_output_embeddings().weight is embeddings
    assert "generation" in tokenizer.chat_template
    untrained = run(
        tmp_path / "short",
        **FEW | {"max_steps": 1, "warmup_steps": 0},
        chat="true",
        adaptation="lora",
        learning_rate=1e-9,
    )
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "short").get_input_embeddings().weight
    moved = (embeddings - before).abs().amax(1) > 1e-6
    assert moved.nonzero().flatten().tolist() == [len(tokenizer) - 1]
    results = json.loads((tmp_path / "run/all_results.json").read_text())
    assert results["eval_loss"] < untrained["eval_loss"]


def test_a_stock_model_without_padding_and_template(tmp_path, finished):
    tokenizer = AutoTokenizer.from_pretrained(finished[0])
    sizes = dict(n_embd=16, n_layer=1, n_head=2, n_positions=256, vocab_size=len(tokenizer))
    GPT2LMHeadModel(GPT2Config(**sizes, eos_token_id=0)).save_pretrained(tmp_path / "stock")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "stock")
    words = ["--model_name_or_path", tmp_path / "stock", "--chat", "true", "--builtin_examples", 40, "--max_steps", 2]
    words += ["--max_length", 192, "--bf16", "false", "--use_cpu", "true", "--eval_on_start", "true"]
    words += ["--judged_questions", 4, "--output_dir", tmp_path / "run"]
    results = sft.main(*sft.parse(list(map(str, words))))
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"] and config["vocab_size"] == len(tokenizer) + 1
    assert results["eval_malformed_answers"] == 1 and config["use_cache"] is True
    assert "AutoModelForCausalLM" in (tmp_path / "run/README.md").read_text()


def test_nothing_is_sent_anywhere(built, monkeypatch):
    """TRL reports runs unless it is told not to; the environment of the tests would hide it."""
    import trl.trainer.base_trainer as base

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
        (dict(adaptation="frozen"), DataError, "frozen trains a new head only"),
        (dict(assistant_only_loss="true"), DataError, "assistant_only_loss needs conversations"),
        (dict(max_length=12), DataError, "no answer begins within max_length 12"),
        (dict(validation_fraction=0, dataset="FILE"), DataError, "there are no validation data"),
        (dict(padding_free="true"), DataError, "TRL refuses these settings: .*max_length"),
    ],
)
def test_what_cannot_be(tmp_path, built, options, error, message):
    if "dataset" in options:
        (tmp_path / "rows").mkdir()
        (tmp_path / "rows/train_val.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 3)
        options = options | {"dataset": tmp_path / "rows"}
    with pytest.raises(error, match=message):
        built(**options)


def test_an_encoder_decoder_has_another_place(tmp_path, built):
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5/config.json").write_text('{"model_type": "hft_t5", "is_encoder_decoder": true}')
    for source, message in (
        (
            ["--model_name_or_path", tmp_path / "t5"],
            "'hft_t5', which reads .* fine-tune it with recipes/finetune_t5.py",
        ),
        (["--architecture", "t5", "--tokenizer", "byte_bpe"], "take gpt, or fine-tune it with recipes/finetune_t5.py"),
    ):
        words = [*source, "--use_cpu", "true", "--output_dir", tmp_path / "none"]
        with pytest.raises(CheckpointError, match=message):
            sft.main(*sft.parse(list(map(str, words))))


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
    with pytest.raises(MachineError, match="needs the package trl; install it: pip install 'trl"):
        built()


@pytest.mark.parametrize(
    "options, message", [(dict(columns=["one"]), "columns are two"), (dict(judged_questions=0), ">= 1")]
)
def test_bad_arguments(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "none", **(FEW | options))
    assert stop.value.code == 2 and message in capsys.readouterr().err
