"""Settings that cannot stand together are found before anything is built (f06)."""

from pathlib import Path

import pytest

from hftoolkit.arguments import checks

STEPS = "'max_steps' must be a whole number >= 1 (or -1, the default)"
MODEL = "architecture: gpt\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("load_best_model_at_end: true", "'load_best_model_at_end' needs 'eval_strategy: steps' or 'epoch'"),
        (
            "load_best_model_at_end: true\neval_strategy: epoch",
            "'load_best_model_at_end' needs equal strategies, but eval_strategy is epoch and save_strategy is steps",
        ),
        (
            "load_best_model_at_end: true\neval_strategy: steps\neval_steps: 20\nsave_steps: 30",
            "'load_best_model_at_end' needs save_steps (30) as a multiple of eval_steps (20)",
        ),
        ("eval_steps: 10", "'eval_steps' has no effect without 'eval_strategy: steps'"),
        (
            "eval_strategy: steps\nvalidation_fraction: 0\ndataset: c.yaml",
            "'eval_strategy: steps' needs validation data: give 'validation_fraction' above 0",
        ),
        (
            "warmup_steps: 20\nmax_steps: 10",
            "'warmup_steps' (20) is more than 'max_steps' (10): the learning rate never arrives",
        ),
        ("streaming: true", "'streaming' needs 'max_steps': the length of a stream is not known"),
        (
            "max_length: 65\nmodel_config: {max_position_embeddings: 64}",
            "'max_length' (65) is more than model_config.max_position_embeddings (64)",
        ),
        (
            "model_config:\n  hidden_size: 30",
            "model_config.hidden_size (30) must be a multiple of model_config.num_attention_heads (4)",
        ),
        ("bf16: true\nfp16: true", "'fp16' and 'bf16' exclude each other"),
        (
            "lr_scheduler_type: greedy",
            "'lr_scheduler_type: greedy' follows the evaluation; give 'eval_strategy: steps'",
        ),
        (
            "dataloader_prefetch_factor: 2",
            "'dataloader_prefetch_factor' has no effect without 'dataloader_num_workers' of at least 1",
        ),
        (
            "model_name_or_path: owner/name",
            "'architecture' (from scratch) and 'model_name_or_path' (from a checkpoint) exclude each other",
        ),
    ],
)
def test_f06_contradictions(refused, text, message):
    assert [line.split("  ", 1)[1] for line in refused(MODEL + text + "\n")] == [message]


def test_f06_contradictions_are_reported_together_with_other_mistakes(refused):
    text = "streaming: true\nwarmup_steps: 9\nload_best_model_at_end: true\nxx: 1\n"
    assert refused(text, "--max_steps", "0", "--eval_strategy", "maybe") == [
        "c.yaml:4:1  unknown key 'xx'; --help lists the keys",
        f"command line  {STEPS}, got 0",
        "command line  'eval_strategy' must be one of no, steps, epoch; got 'maybe'",
        "c.yaml  no model: give 'architecture' (from scratch) or 'model_name_or_path' (a checkpoint)",
    ], "nothing may be said that rests on a value which was wrong"


def test_f06_positions_of_a_checkpoint_count(refused):
    Path("model").mkdir()
    Path("model/config.json").write_text('{"model_type": "hft_gpt", "max_position_embeddings": 16}')
    text = "model_name_or_path: model\nmodel_config: {hiden_size: 2}\n"
    assert refused(text) == [
        "c.yaml:2:16  HftGptConfig has no 'hiden_size'; did you mean 'hidden_size'?",
        "c.yaml  'max_length' (32) is more than model_config.max_position_embeddings (16)",
    ]


def test_f06_parallel_files_with_validation_data_are_no_contradiction():
    Path("texts").mkdir()
    values = {"eval_strategy": "epoch", "validation_fraction": 0, "dataset": "texts"}
    for name in ("train.en", "train.de"):
        Path("texts", name).touch()
    assert len(list(checks.contradictions(values, values))) == 1
    Path("texts", "val.en").touch()
    assert not list(checks.contradictions(values, values))


def test_f06_a_tracker_that_is_not_installed_ends_with_code_6(refused, monkeypatch):
    find_spec = checks.importlib.util.find_spec
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None if name == "wandb" else find_spec(name))
    message = "'report_to: wandb' needs the package wandb; install it: pip install wandb"
    assert refused(MODEL + "report_to: [wandb]\n", code=6) == [f"c.yaml:2:12  {message}"]
