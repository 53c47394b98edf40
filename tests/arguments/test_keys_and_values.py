"""Unknown keys and wrong values: the place, the nearest name, the range (f01, f03, f04, f05)."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from hftoolkit.strict_yaml import plain_value

LR = "'learning_rate' must be a number > 0"
STEPS = "'max_steps' must be a whole number >= 1 (or -1, the default)"
MODEL = "architecture: gpt\n"


def test_f01_unknown_key_names_the_nearest(refused):
    lines = refused(MODEL + "learnin_rate: 1e-3\nmax_steps: 6.5\n", "--per-device-train-batchsize", "8")
    assert lines == [
        "c.yaml:2:1  unknown key 'learnin_rate'; did you mean 'learning_rate'?",
        f"c.yaml:3:12  {STEPS}, got 6.5",
        "command line  unknown key 'per_device_train_batchsize'; did you mean 'per_device_train_batch_size'?",
    ]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("warmup_ratio", "it is now warmup_steps: below 1 it is a share of all steps, 'warmup_steps: 0.1'"),
        ("evaluation_strategy", "it is now 'eval_strategy'"),
        ("overwrite_output_dir", "a run folder is never overwritten: give another output_dir"),
        ("group_by_length", "it is now 'train_sampling_strategy: group_by_length'"),
        ("logging_dir", "set the environment variable TENSORBOARD_LOGGING_DIR"),
        ("n_embd", "it is 'hidden_size', under 'model_config'"),
        (
            "hidden_size",
            "it is a field of HftGptConfig: write it under 'model_config', or as --model_config.hidden_size",
        ),
        ("xyzzy", "--help lists the keys"),
    ],
)
def test_f01_a_known_other_name_is_explained(refused, key, hint):
    assert refused(MODEL + f"{key}: 1\n") == [f"c.yaml:2:1  unknown key '{key}'; {hint}"]


def test_f01_model_config_keys_are_those_of_the_architecture(refused):
    text = MODEL + "model_config:\n  hiden_size: 8\n  vocab_size: 0\n  dropout: 1.0\n  order: first\n  max_length: 4\n"
    assert refused(text, "--model_config.hidden_size", "8.5") == [
        "c.yaml:3:3  HftGptConfig has no 'hiden_size'; did you mean 'hidden_size'?",
        "c.yaml:4:15  'vocab_size' must be a whole number >= 1, got 0",
        "c.yaml:5:12  'dropout' must be a number >= 0 and < 1, got 1.0",
        "c.yaml:6:10  'order' must be one of pre, post; got 'first'",
        "c.yaml:7:3  HftGptConfig has no 'max_length'; 'max_length' stands outside of model_config",
        "command line  'hidden_size' must be a whole number >= 1, got 8.5",
    ]


def test_f01_mistakes_are_found_fast_and_without_torch():
    """In a fresh process, with the true package and the true transformers."""
    Path("c.yaml").write_text("learnin_rate: 1\nmax_steps: abc\narchitecture: gtp\n")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    code = (
        "import sys\nfrom hftoolkit.arguments import *\n"
        "try: parse_arguments(ModelArguments, DataArguments, 'transformers.TrainingArguments')\n"
        "finally: print(sorted({'torch', 'transformers', 'datasets', 'numpy', 'accelerate'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, "--config", "c.yaml"], capture_output=True, text=True)
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert (done.returncode, done.stdout.strip()) == (2, "[]"), done.stderr
    assert done.stderr.count("error  ") == 3 and "Traceback" not in done.stderr
    assert seconds < 1, seconds


# F3, F4, F5: YAML and values


def test_f03_duplicate_keys_name_both_lines(refused):
    assert refused(MODEL + "seed: 1\nmodel_config: {tie: true, tie: false}\nseed: 2\n") == [
        "c.yaml:3:27  'tie' is given twice: in line 3 and in line 3",
        "c.yaml:4:1  'seed' is given twice: in line 2 and in line 4",
    ]


def test_f03_duplicate_flags_are_refused(refused):
    lines = refused("", "--architecture", "gpt", "--seed", "1", "--seed=2", "--streaming", "--no_streaming")
    assert lines[:2] == ["command line  --seed is given twice", "command line  --streaming is given twice"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-4", 1e-4), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-0.0", 0.0), ("+1", 1), ("012", 12), ("0o14", 12)),
        *(("0x1F", 31), ("no", "no"), ("yes", "yes"), ("on", "on"), ("12:30", "12:30"), ("1_000", "1_000")),
        *(("true", True), ("False", False), ("~", None), ("null", None), ("", None), ("2001-01-01", "2001-01-01")),
        *((".inf", float("inf")), ("-.INF", float("-inf")), ("0b11", "0b11"), ("1e", "1e"), ("٣", "٣")),
    ],
)
def test_f04_scalars_are_read_as_yaml_1_2(text, value):
    assert plain_value(text) == value and type(plain_value(text)) is type(value)


@pytest.mark.parametrize("way", ["file", "flags"])
def test_f04_the_same_text_means_the_same_in_file_and_flags(way, parse):
    pairs = {"learning_rate": "1e-4", "seed": "012", "eval_strategy": "no", "note": "012", "max_length": "1e2"}
    if way == "file":
        task, stock = parse("".join(f"{key}: {value}\n" for key, value in pairs.items()))
    else:
        task, stock = parse("", *(word for key, value in pairs.items() for word in (f"--{key}", value)))
    assert (stock.learning_rate, stock.seed, stock.eval_strategy) == (1e-4, 12, "no")
    assert (task.note, task.max_length) == ("012", 100)


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("max_steps: 1_000", 12, f"{STEPS}, got '1_000'; write 1000"),
        ("max_steps: '7'", 12, f"{STEPS}, got '7'; remove the quotes"),
        ("max_steps: 12:30", 12, f"{STEPS}, got '12:30'"),
        ("bf16: no", 7, "'bf16' must be true or false, got 'no'; write false"),
        ("bf16: 1", 7, "'bf16' must be true or false, got 1; write true"),
        ("learning_rate: '1e-4'", 16, f"{LR}, got '1e-4'; remove the quotes"),
        ("text_column: null", 14, "'text_column' must be text, got null"),
        ("sizes: 3", 8, "'sizes' must be a list, got 3; write [3]"),
        ("sizes: [1, x]", 8, "'sizes' must be a list, got 'x' in it"),
        ("seed: [1]", 7, "'seed' must be a whole number >= 0 and <= 4294967295, got a list"),
        ("model_config: gpt", 15, "'model_config' must be a mapping of names to values, got 'gpt'"),
    ],
)
def test_f04_what_is_refused_is_shown_as_written(refused, line, column, message):
    assert refused(MODEL + line + "\n") == [f"c.yaml:2:{column}  {message}"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_steps", "abc", f"{STEPS}, got 'abc'"),
        ("max_steps", "0", f"{STEPS}, got 0"),
        ("max_steps", "-2", f"{STEPS}, got -2"),
        ("learning_rate", "-1e-3", f"{LR}, got -1e-3"),
        ("learning_rate", "0", f"{LR}, got 0"),
        ("learning_rate", ".nan", f"{LR}, got .nan"),
        ("learning_rate", ".inf", f"{LR}, got .inf"),
        ("learning_rate", "1e999", f"{LR}, got 1e999"),
        ("learning_rate", "nan", f"{LR}, got 'nan'"),
        ("learning_rate", "9" * 350, f"{LR}, got {'9' * 57}..."),
        ("seed", "9" * 350, f"'seed' must be a whole number >= 0 and <= 4294967295, got {'9' * 57}..."),
        ("seed", "9" * 5000, f"'seed' must be a whole number >= 0 and <= 4294967295, got '{'9' * 57}...'"),
        ("learning_rate", "true", f"{LR}, got true"),
        ("per_device_train_batch_size", "0", "'per_device_train_batch_size' must be a whole number >= 1, got 0"),
        ("num_train_epochs", "0", "'num_train_epochs' must be a number > 0, got 0"),
        (
            "warmup_steps",
            "1.5",
            "'warmup_steps' must be a number >= 0, whole or (as a share of all steps) below 1, got 1.5",
        ),
        ("adam_beta2", "1.0", "'adam_beta2' must be a number >= 0 and < 1, got 1.0"),
        ("max_length", "1", "'max_length' must be a whole number >= 2, got 1"),
        ("temperature", "11", "'temperature' must be a number > 0 and <= 10, got 11"),
        ("validation_fraction", "1", "'validation_fraction' must be a number >= 0 and < 1, got 1"),
        ("dtype", "bfloat", "'dtype' must be one of float32, bfloat16; got 'bfloat'; did you mean 'bfloat16'?"),
        ("attn_implementation", "spda", None),
        (
            "eval_strategy",
            "step",
            "'eval_strategy' must be one of no, steps, epoch; got 'step'; did you mean 'steps'?",
        ),
        ("optim", "adamw_troch", "'optim' must be one of 41 names; got 'adamw_troch'; did you mean 'adamw_torch'?"),
        (
            "report_to",
            "tensorbord",
            "'report_to' must be one of 16 names; got 'tensorbord'; did you mean 'tensorboard'?",
        ),
        ("architecture", "gtp", "'architecture' must be one of gpt; got 'gtp'; did you mean 'gpt'?"),
    ],
)
def test_f05_wrong_values_name_the_range(refused, key, value, message):
    if message is None:
        listed = "eager, sdpa, flash_attention_2, flex_attention"
        message = f"'{key}' must be one of {listed}; got '{value}'; did you mean 'sdpa'?"
    model = "" if key == "architecture" else MODEL
    lines = refused(model + f"{key}: {value}\n", f"--{key}", value)
    lines = [line for line in lines if "no model" not in line]
    assert lines == [f"c.yaml:{model.count(chr(10)) + 1}:{len(key) + 3}  {message}", f"command line  {message}"]


def test_f05_values_at_the_edge_pass(refused):
    text = MODEL + "max_steps: -1\nwarmup_steps: 0.5\nadam_beta1: 0\nlogging_steps: 0.1\nmax_grad_norm: 0\nxx: 1\n"
    assert refused(text) == ["c.yaml:7:1  unknown key 'xx'; --help lists the keys"]
