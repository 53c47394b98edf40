"""The tiny question-answering run from beginning to end, in process: what it learns and leaves."""

import json
import math

import pytest

from hftoolkit.errors import DataError
from hftoolkit.recipes import finetune_qa

QUICK = ["--config", "bert/qa_tiny", "--builtin_examples", "300", "--max_steps", "40", "--warmup_steps", "4"]
QUICK += ["--eval_steps", "40", "--save_steps", "40", "--tokenizer_vocab_size", "600", "--use_cpu"]


def run(*argv):
    return finetune_qa.main(*finetune_qa.parse([str(word) for word in argv]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "qa"
    return folder, run(*QUICK, "--output_dir", folder)


def test_it_learns(finished):
    """Better than guessing a token (log of their number), and than the first words of the context."""
    folder, results = finished
    data = json.loads((folder / "run.json").read_text())["data"]
    assert data["train"]["questions"] == 300 and data["validation"]["questions"] == 60
    tokens = data["validation"]["tokens"] / data["validation"]["windows"]
    assert results["eval_loss"] < 0.85 * math.log(tokens)
    assert results["eval_exact_match"] > results["baselines"]["first_words"]["eval_exact_match"]
    assert results["baselines"]["frequent_answer"]["eval_exact_match"] > 0.3


def test_its_predictions_are_the_official_files(finished):
    from hftoolkit.arguments import ExampleArguments
    from hftoolkit.data.question_answering import load_questions
    from hftoolkit.evaluation.answer_scores import score_texts

    folder, results = finished
    questions = load_questions(ExampleArguments(builtin_examples=300))["validation"]
    scores = score_texts(questions, json.loads((folder / "predictions.json").read_text()))
    assert scores["exact_match"] == pytest.approx(results["eval_exact_match"], abs=1e-6)
    assert scores["f1"] == pytest.approx(results["eval_f1"], abs=1e-6)
    assert not (folder / "null_odds.json").exists()


def test_questions_without_answer_grouped_by_length_from_a_stock_checkpoint(finished, tmp_path):
    """Stock BERT in a folder; rows in another order in training must not shuffle the answers."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(finished[0])
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "stock")
    tokenizer.save_pretrained(tmp_path / "stock")
    results = run(
        "--model_name_or_path", tmp_path / "stock", "--dataset_config", "unanswerable", "--builtin_examples", 90,
        "--max_length", 96, "--doc_stride", 16, "--max_question_length", 24, "--max_steps", 3, "--use_cpu",
        "--train_sampling_strategy", "group_by_length", "--eval_strategy", "steps", "--eval_steps", 3,
        "--learning_rate", 1e-3, "--output_dir", tmp_path / "run",
    )  # fmt: skip
    assert results["eval_total"] == 18 and results["eval_NoAns_total"] == 2
    nothing = results["baselines"]["no_answer"]["eval_f1"]
    assert results["eval_f1"] == results["eval_best_f1"] >= nothing == pytest.approx(2 / 18, rel=1e-6)
    chosen = json.loads((tmp_path / "run/predictions.json").read_text())
    odds = json.loads((tmp_path / "run/null_odds.json").read_text())
    threshold = results["eval_best_f1_thresh"] + 1e-6  # one of the odds, reported with six decimals
    assert all((text == "") == (odds[name] > threshold) for name, text in chosen.items())


def test_a_misplaced_answer_can_stop_it(tmp_path):
    qas = [{"id": "q", "question": "Who?", "answers": [{"text": "Eve", "answer_start": 0}]}]
    (tmp_path / "x.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": "Tom is.", "qas": qas}]}]}))
    options = ["--dataset", tmp_path / "x.json", "--output_dir", tmp_path / "run", "--validation_fraction", 0]
    with pytest.raises(DataError, match="q: 'Eve' is not at 0"):
        run(*QUICK, *options, "--eval_strategy", "no", "--misplaced_answers", "stop")
