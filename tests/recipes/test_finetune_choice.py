"""The tiny multiple-choice run from beginning to end, in process; questions with different numbers of choices."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset

from hftoolkit.evaluation.choices import baseline_scores, best_choices
from hftoolkit.recipes import finetune_choice

QUICK = ["--config", "bert/choice_tiny", "--builtin_examples", "200", "--max_steps", "30", "--warmup_steps", "3"]
QUICK += ["--eval_steps", "30", "--save_steps", "30", "--tokenizer_vocab_size", "600", "--use_cpu"]


def run(*argv):
    return finetune_choice.main(*finetune_choice.parse([str(word) for word in argv]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "choice"
    return folder, run(*QUICK, "--output_dir", folder)


def test_what_it_leaves(finished):
    folder, results = finished
    assert results["baselines"]["random"]["eval_accuracy"] == 0.25
    assert results["eval_loss"] < np.log(4) + 0.1
    chosen = json.loads((folder / "predictions.json").read_text())
    from hftoolkit.arguments import ExampleArguments
    from hftoolkit.data.multiple_choice import load_choices

    questions = load_choices(ExampleArguments(builtin_examples=200))["validation"]
    right = [chosen[name] == label for name, label in zip(questions["id"], questions["label"], strict=True)]
    assert np.mean(right) == pytest.approx(results["eval_accuracy"], abs=1e-6)


def test_it_learns_what_it_can(finished, tmp_path):
    """Two or three choices; the right one says `red`. Stock BERT, accumulated batches, grouped by length."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(finished[0])
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "stock")
    tokenizer.save_pretrained(tmp_path / "stock")
    colours = ["red", "blue", "green"]
    rows = [
        {"context": "the lamp is" + " so" * (n % 4), "choices": np.roll(colours[: 2 + n % 2], n % 5).tolist()}
        for n in range(120)
    ]
    lines = [json.dumps(row | {"label": row["choices"].index("red")}) for row in rows]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    results = run(
        "--model_name_or_path", tmp_path / "stock", "--dataset", tmp_path / "train.jsonl", "--max_length", 16,
        "--num_train_epochs", 6, "--learning_rate", 1e-2, "--per_device_train_batch_size", 4,
        "--gradient_accumulation_steps", 2, "--save_strategy", "no", "--use_cpu", "--validation_fraction", 0.2,
        "--train_sampling_strategy", "group_by_length", "--output_dir", tmp_path / "run",
    )  # fmt: skip
    assert results["eval_accuracy"] == 1
    assert results["baselines"]["choices_only"]["eval_accuracy"] == 1  # and the baseline says how


@pytest.mark.parametrize("accepts", [True, False])
def test_filling_has_no_probability(accepts, tmp_path):
    """The loss is that of each question alone, without the choices that only fill the batch."""
    from transformers import TrainingArguments
    from transformers.modeling_outputs import MultipleChoiceModelOutput

    from hftoolkit.training.choice_trainer import ChoiceTrainer

    class Model(torch.nn.Linear):
        accepts_loss_kwargs = accepts

        def forward(self, input_ids):
            return MultipleChoiceModelOutput(logits=super().forward(input_ids)[..., 0])

    model = Model(3, 1)
    trainer = ChoiceTrainer(model, TrainingArguments(tmp_path, use_cpu=True, report_to="none"))
    inputs = {"input_ids": torch.randn(2, 4, 3), "labels": torch.tensor([1, 3])}
    inputs["choice_mask"] = torch.tensor([[True, True, False, False], [True] * 4])
    loss, outputs = trainer.compute_loss(model, inputs, return_outputs=True)
    scores = model(inputs["input_ids"]).logits
    alone = -scores[0, :2].log_softmax(0)[1] - scores[1].log_softmax(0)[3]
    torch.testing.assert_close(loss, alone / 2)
    assert set(inputs) == {"input_ids", "labels", "choice_mask"}
    assert outputs["logits"].argmax(1)[0] < 2
    whole = trainer.compute_loss(model, inputs, num_items_in_batch=torch.tensor(8))
    torch.testing.assert_close(whole, alone / (8 if accepts else 2))


def test_best_choices_and_baselines():
    questions = Dataset.from_list(
        [
            {"context": "a red lamp", "choices": ["red", "blue green"], "label": 0},
            {"context": "it sang", "choices": ["no", "so", "yes it sang"], "label": 2},
        ]
    )
    assert best_choices(np.array([[1.0, 2.0, 9.0], [1.0, 2.0, 9.0]]), questions).tolist() == [1, 2]
    scores = {name: found["eval_accuracy"] for name, found in baseline_scores(questions, questions).items()}
    assert scores["random"] == pytest.approx(5 / 12)
    assert scores["overlap"] == 1 and scores["longest"] == 0.5 and scores["majority"] == 0.5
