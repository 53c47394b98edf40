"""Language models from before the Transformer, from beginning to end: what they learn, and that they resume."""

import json
import math
import shutil

import pytest

from hftoolkit.recipes import evaluate_lm, generate, train_recurrent_lm

QUICK = ["--builtin_documents", "200", "--max_steps", "40", "--eval_steps", "20", "--save_steps", "20", "--use_cpu"]


def run(recipe, *argv):
    return recipe.main(*recipe.parse([str(word) for word in argv]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the tiny config on fewer documents: (folder, results)."""
    folder = tmp_path_factory.mktemp("runs") / "lstm"
    return folder, run(train_recurrent_lm, "--config", "rnn/lm_tiny", "--output_dir", folder, *QUICK)


def assert_it_learns(results):
    """Below the unigram loss of the same tokens; counted models stand in their order, above what none can go below."""
    losses = [results["baselines"][name]["eval_loss"] for name in ("true_entropy", "kneser_ney_5_gram", "bigram")]
    unigram = results["baselines"]["unigram"]["eval_loss"]
    assert sorted(losses) == losses and losses[-1] < unigram < math.log(512)
    assert losses[0] < results["eval_loss"] < unigram
    assert (
        results["eval_word_perplexity"]
        > results["eval_perplexity"]
        == pytest.approx(math.exp(results["eval_loss"]), rel=1e-5)
    )


def test_it_learns_and_leaves_a_model(finished):
    folder, results = finished
    assert_it_learns(results)
    names = {path.name for path in folder.iterdir()}
    assert names >= {"model.safetensors", "modeling_rnn.py", "layers_cache.py", "README.md", "curves.png"}
    card = (folder / "README.md").read_text()
    assert "1 LSTM layer of 64 cells" in card and "kneser ney 5 gram" in card and "AutoModelForCausalLM" in card
    assert json.loads((folder / "run.json").read_text())["data"]["train"]["streams"] == 16


def test_interrupted_and_resumed_is_uninterrupted(finished, tmp_path, monkeypatch):
    """Stopped in the middle of a pass, where only the checkpoint knows the state."""
    from transformers import TrainerCallback

    from hftoolkit.training import truncated_bptt

    class Stop(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    build = truncated_bptt.TruncatedBpttTrainer.__init__

    def with_stop(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self.add_callback(Stop())

    folder, results = finished
    arguments = ["--config", "rnn/lm_tiny", "--output_dir", tmp_path / "again", *QUICK]
    with monkeypatch.context() as patch:
        patch.setattr(truncated_bptt.TruncatedBpttTrainer, "__init__", with_stop)
        with pytest.raises(KeyboardInterrupt):
            run(train_recurrent_lm, *arguments)
    assert (tmp_path / "again/checkpoint-20/carried_state.safetensors").is_file()
    assert run(train_recurrent_lm, *arguments) == results
    assert (tmp_path / "again/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_run_that_stopped_behind_its_last_step_is_finished(finished, tmp_path):
    """Its evaluation stands in the checkpoint, and none is made again."""
    folder, results = finished
    shutil.copytree(folder, tmp_path / "again")
    record = json.loads((folder / "run.json").read_text())
    (tmp_path / "again/run.json").write_text(json.dumps(record | {"status": "running"}))
    arguments = ["--config", "rnn/lm_tiny", "--output_dir", tmp_path / "again", *QUICK]
    assert run(train_recurrent_lm, *arguments) == results


def test_the_feed_forward_model_learns_from_word_vectors_too(tmp_path):
    (tmp_path / "vectors.txt").write_text("2 32\n" + "".join(f"{word}{' 0.5' * 32}\n" for word in ("the", "and")))
    results = run(
        train_recurrent_lm, "--config", "nnlm/lm_tiny", "--output_dir", tmp_path / "run", *QUICK, "--tokenizer", "word",
        "--embeddings", tmp_path / "vectors.txt",
    )  # fmt: skip
    assert results["eval_loss"] < results["baselines"]["unigram"]["eval_loss"]
    card = (tmp_path / "run/README.md").read_text()
    assert "the 4 before it" in card and "began as those of `vectors.txt`" in card


def test_generate_and_evaluate_it(finished, tmp_path):
    """Its documents one by one, each from an empty state, of as many tokens as the stream of all had."""
    folder, trained = finished
    arguments = ["--model_name_or_path", folder]
    out = run(
        generate, *arguments, "--prompt", "The", "--max_new_tokens", "8", "--output_file", tmp_path / "out.jsonl"
    )
    assert out[0]["continuation"]
    found = run(evaluate_lm, *arguments, "--builtin_documents", "200")
    assert found["tokens"] == trained["eval_tokens"]
    assert found["loss"] == pytest.approx(trained["eval_loss"], abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--streaming", "true"], "streaming is set, but the text has to be cut"),
        (["--model_config.bidirectional", "true"], "bidirectional must be false in a language model"),
        (["--model_config.tie_word_embeddings", "true", "--model_config.embedding_size", "32"], "embedding_size 32 must"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(options, message, tmp_path):
    from hftoolkit.errors import UserError

    with pytest.raises(UserError, match=message):
        run(train_recurrent_lm, "--config", "rnn/lm_tiny", "--output_dir", tmp_path / "run", *QUICK, *options)
