"""A whole RLHF run in process: three stages, one report, resumed and refused."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from hftoolkit.errors import DataError
from hftoolkit.recipes import ppo, reward, rlhf, sft
from hftoolkit.rl import rlhf_checks, rlhf_results

TINY = ["--config", "gpt/rlhf_tiny", "--use_cpu", "--sft.max_steps", "8", "--reward.max_steps", "4"]
TINY += [
    "--sft.warmup_steps",
    "2",
    "--reward.warmup_steps",
    "1",
    "--sft.judged_questions",
    "4",
    "--ppo.total_episodes",
    "64",
]


def run(*argv):
    return rlhf.main(rlhf.parse([str(word) for word in argv])[0])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "rlhf"
    return folder, run(*TINY, "--output_dir", folder)


def test_what_it_leaves(finished):
    folder, report = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        *("over_optimisation.png", "ppo", "report.json", "report.md", "reward", "sft")
    ]
    assert [row["stage"] for row in report["stages"]] == ["SFT", "PPO"]
    assert {"learned_reward", "true_reward", "learned_win_rate"} <= report["stages"][1].keys()
    assert report["stages"][0]["kl"] == pytest.approx(0, abs=1e-6) and report["stages"][1]["kl"] != 0
    assert [point["step"] for point in report["path"]] == [0, 8, 16]
    assert set(report["samples"][0]["answers"]) == {"SFT", "PPO"}
    assert "| PPO |" in (folder / "report.md").read_text()
    AutoModelForCausalLM.from_pretrained(folder / "ppo")


def test_the_judge_is_reported_and_not_learned(finished):
    folder, report = finished
    results = json.loads((folder / "ppo/all_results.json").read_text())
    assert results["eval_reward"] == pytest.approx(results["eval_rewards/reward"])
    assert results["eval_rewards/judge"] == report["path"][-1]["true_reward"] == -1


def test_the_same_command_does_what_is_left(finished, tmp_path, capsys):
    folder, report = finished
    assert run(*TINY, "--output_dir", folder) == report
    assert "already done" in capsys.readouterr().out
    shutil.rmtree(folder / "ppo")  # as if it had been interrupted before the last stage
    (folder / "report.json").unlink()
    before = (folder / "sft/model.safetensors").stat().st_mtime
    again = run(*TINY, "--output_dir", folder)
    assert again == report and (folder / "sft/model.safetensors").stat().st_mtime == before
    with pytest.raises(DataError, match=r"a run with other arguments \(ppo.kl_coef was '\(not given\)' and is 0.2"):
        run(*TINY, "--ppo.kl_coef", "0.2", "--output_dir", folder)


@pytest.fixture
def started(monkeypatch):
    """Names of the stages that were started; each only leaves the record of a finished run."""
    names = []

    def stand_in(recipe):
        def main(*arguments):
            folder = Path(arguments[-1].output_dir)
            names.append(folder.name)
            folder.mkdir(parents=True)
            record = {"given": arguments[-1].given_arguments, "status": "done"}
            (folder / "run.json").write_text(json.dumps(record))

        monkeypatch.setattr(recipe, "main", main)

    for recipe in (sft, reward, ppo):
        stand_in(recipe)
    monkeypatch.setattr(rlhf_results, "make_report", lambda *arguments: {})
    monkeypatch.setattr(rlhf_checks, "check_with_policy", lambda *arguments: None)
    return names


def test_a_finished_stage_is_not_taken_for_one_with_other_arguments(started, tmp_path, capsys):
    words = [*TINY, "--output_dir", tmp_path / "run"]
    run(*words)  # interrupted before the report
    assert started == ["sft", "reward", "ppo"]
    capsys.readouterr()
    for changed, said in (
        (["--sft.learning_rate", "0.5"], "--sft.KEY"),
        (["--true_reward", "none"], "--ppo.KEY"),  # the history of PPO has a true reward
    ):
        with pytest.raises(SystemExit) as end:
            run(*words, *changed)
        told = capsys.readouterr().err
        assert end.value.code == 2 and said in told
    assert "'rewards' was" in told and len(started) == 3
    shutil.rmtree(tmp_path / "run/ppo")
    run(*words, "--ppo.kl_coef", "0.2")  # what has not been done may be done in another way
    assert started[3:] == ["ppo"]


def test_mistakes_of_the_last_stage_are_found_before_the_first(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(*TINY, "--ppo.kl_cof", "0.1", "--output_dir", tmp_path / "run")
    assert "kl_cof" in capsys.readouterr().err and not (tmp_path / "run/sft").exists()
    with pytest.raises(DataError, match=r"ppo\.rewards cannot be given"):
        run(*TINY, "--ppo.rewards", "brief", "--output_dir", tmp_path / "run")
    with pytest.raises(DataError, match=r"the stage sft has no config: give --sft\.config"):
        run("--output_dir", tmp_path / "run", "--reward.config", "gpt/reward", "--ppo.config", "gpt/ppo")
    quiet = ["--ppo.eval_strategy", "no", "--ppo.eval_on_start", "false", "--ppo.validation_fraction", "0"]
    with pytest.raises(DataError, match=r"give --ppo\.validation_fraction above 0"):
        run(*TINY, *quiet, "--ppo.dataset", _prompts(tmp_path), "--output_dir", tmp_path / "run")
    with pytest.raises(DataError, match=r"stage ppo \(.*--ppo.KEY\): .*there is no file nothing.py"):
        run(*TINY, "--true_reward", "nothing.py:f", "--output_dir", tmp_path / "run")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(*TINY, "--ppo.rollout_batch_size", "33", "--output_dir", tmp_path / "run")
    assert "rollout_batch_size 33 is no multiple" in capsys.readouterr().err
    assert not list((tmp_path / "run").iterdir())


def test_the_sft_model_is_looked_at_before_more_is_trained(started, tmp_path, monkeypatch):
    def refuse(folder, settings, prompts):
        assert folder == tmp_path / "run/sft" and settings[4].rollout_batch_size == 32 and len(prompts["train"]) == 256
        raise DataError("too long")

    monkeypatch.setattr(rlhf_checks, "check_with_policy", refuse)
    with pytest.raises(DataError, match="too long"):
        run(*TINY, "--output_dir", tmp_path / "run")
    assert started == ["sft"]


def _prompts(folder):
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {n}:"}) + "\n" for n in range(40)))
    return folder / "prompts.jsonl"


def test_a_stage_keeps_the_data_and_the_seed_of_its_config(started, tmp_path):
    (tmp_path / "ppo.yaml").write_text(
        f"dataset: {_prompts(tmp_path)}\nseed: 7\nrollout_batch_size: 8\n"
        "per_device_train_batch_size: 8\nvalidation_fraction: 0.2\n"
    )
    words = ["--sft.config", "gpt/sft_tiny", "--reward.config", "gpt/reward_quickstart", "--use_cpu"]
    words += ["--ppo.config", tmp_path / "ppo.yaml"]
    run(*words, "--output_dir", tmp_path / "one")
    given = json.loads((tmp_path / "one/ppo/run.json").read_text())["given"]
    assert given["seed"] == 7 and given["dataset"] == str(tmp_path / "prompts.jsonl")
    assert len(given["rewards"]) == 1  # nobody knows the truth of these
    run(*words, "--output_dir", tmp_path / "two", "--seed", "3")
    assert json.loads((tmp_path / "two/ppo/run.json").read_text())["given"]["seed"] == 3
