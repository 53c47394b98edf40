"""The numbers of the PPOTrainer that TRL removed after 1.12.0, where it was right; where it was not, by what they differ.

pip install --target trl112 --no-deps trl==1.12.0
HFTOOLKIT_TRL112=trl112 pytest tests/rl/test_against_trl112.py
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_ppo import EOS, tiny_policy
from transformers import AutoModelForSequenceClassification

from hftoolkit.rl.actor_critic import ActorCritic
from hftoolkit.rl.advantages import advantages_and_returns, kl_per_token, token_rewards, whiten
from hftoolkit.rl.losses import ppo_parts
from hftoolkit.rl.rollout import pack_right
from hftoolkit.rl.sampling import Responses
from hftoolkit.rl.scoring import shape_scores

FOLDER = os.environ.get("HFTOOLKIT_TRL112")
pytestmark = pytest.mark.skipif(not FOLDER, reason="HFTOOLKIT_TRL112 names no folder with trl 1.12.0")

SETTINGS = dict(temperature=0.8, kl_coef=0.3, gamma=0.9, lam=0.7, vf_coef=0.5, cliprange=0.2)
ROWS, LENGTH = 8, 7


def classifier(policy, seed):
    torch.manual_seed(seed)
    config = type(policy.config)(**policy.config.to_dict() | {"num_labels": 1})
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for weight in model.parameters():
        weight.data.add_(0.2 * torch.randn(weight.shape))
    return model


def moved(policy, size, seed):
    other = tiny_policy()
    other.load_state_dict(policy.state_dict())
    generator = torch.Generator().manual_seed(seed)
    for weight in other.parameters():
        weight.data.add_(size * torch.randn(weight.shape, generator=generator))
    return other


def make_job(lengths, **settings):
    """Eight prompts of three tokens; responses of these lengths, the shorter ones with the end token last."""
    generator = torch.Generator().manual_seed(1)
    prompts = [[n + 3, *torch.randint(3, 20, (2,), generator=generator).tolist()] for n in range(ROWS)]
    responses = torch.randint(3, 20, (ROWS, LENGTH), generator=generator)
    for row, length in enumerate(lengths):
        if length < LENGTH:
            responses[row, length - 1], responses[row, length:] = EOS, 0
    policy = tiny_policy()
    job = dict(policy=policy, old_policy=moved(policy, 0.03, 2), reference=moved(policy, 0.1, 3))
    job |= dict(value=classifier(policy, 4), reward=classifier(policy, 5), prompts=prompts, responses=responses)
    return job | {"settings": SETTINGS | {"stop_token": "eos"} | settings}


RAGGED = [7, 3, 5, 7, 1, 6, 2, 4]
JOBS = {
    "full": make_job([LENGTH] * ROWS),
    "k3": make_job([LENGTH] * ROWS, kl_estimator="k3"),
    "ragged": make_job(RAGGED),
    "parts": make_job(RAGGED, per_device_train_batch_size=2, gradient_accumulation_steps=4),
    "other_stop": make_job([LENGTH] * ROWS, stop_token=None, stop_token_id=19, missing_eos_penalty=10.0),
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """What the removed trainer computed, by the name of the job, rows in the order of the prompts."""
    folder = tmp_path_factory.mktemp("trl")
    torch.save(list(JOBS.values()), folder / "jobs.pt")
    command = [sys.executable, str(Path(__file__).with_name("trl112_process.py")), "jobs.pt", "results.pt"]
    path = os.pathsep.join([str(Path(FOLDER).resolve()), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = torch.load(folder / "results.pt")
    for found in results:
        back = torch.tensor(found["rows"]).argsort()
        for name in ("values", "scores", "rewards", "advantages", "whitened"):
            found[name] = found[name][back]
    return dict(zip(JOBS, results, strict=True))


class Ours:
    """Our numbers on a job with the scores that their reward model gave."""

    def __init__(self, job, scores):
        settings = job["settings"]
        ids = job["responses"]
        lengths = (ids != 0).sum(dim=1)
        ended = ids.gather(1, lengths.unsqueeze(1) - 1).squeeze(1) == EOS
        packed = pack_right(job["prompts"], Responses(ids, lengths, torch.zeros(ids.shape), ended), 0)
        self.mask = packed.mask
        given = (packed.input_ids, packed.attention_mask, packed.prompt_lengths)
        of = {}
        with torch.no_grad():
            for name in ("policy", "old_policy", "reference"):
                pair = ActorCritic(job[name], job["value"], settings["temperature"])
                of[name], _, _ = pair(*given)
        table = {name: self.rows(found.logprobs) for name, found in of.items()}
        self.values = self.rows(of["policy"].values)
        self.kl = kl_per_token(table["old_policy"], table["reference"], settings.get("kl_estimator", "k1"))
        self.rewards = token_rewards(scores, self.kl, self.mask, settings["kl_coef"])
        options = {"gamma": settings["gamma"], "lam": settings["lam"]}
        self.advantages, self.returns = advantages_and_returns(self.rewards, self.values, self.mask, **options)
        self.whitened = whiten(self.advantages, self.mask)
        flat = {name: getattr(self, name)[self.mask] for name in ("values", "returns")}
        batch = {
            "old_logprobs": table["old_policy"][self.mask],
            "old_values": flat["values"],
            "returns": flat["returns"],
        }
        batch |= {"advantages": self.whitened[self.mask], "tokens": self.mask.sum()}
        self.parts = ppo_parts(of["policy"], batch, settings["cliprange"], 0.2)

    def rows(self, flat):
        table = torch.zeros(self.mask.shape)
        table[self.mask] = flat
        return table


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["full", "k3"])
def test_on_responses_of_full_length_all_numbers_are_theirs(theirs, kind):
    """But for the variance that advantages are whitened by: theirs divides by N - 1, lm-human-preferences' by N."""
    found = theirs[kind]
    ours = Ours(JOBS[kind], found["scores"])
    for name in ("values", "rewards", "advantages"):
        close(getattr(ours, name), found[name])
    N = ROWS * LENGTH
    ratio = ((N - 1) / N) ** 0.5
    close(ours.whitened * ratio, found["whitened"])
    (value_loss, counted), (policy_loss, _) = found["means"][:2]
    assert counted == N and ours.parts["clipped"] > 0
    close(ours.parts["policy_loss"] * ratio, torch.tensor(policy_loss))
    close(ours.parts["value_loss"], torch.tensor(0.5 * value_loss))


def test_their_score_of_a_response_that_ends_lies_one_place_behind_it(theirs):
    """In lm-human-preferences (train_policy.py, line 153) and here it is given for the last token."""
    found = theirs["ragged"]
    ours = Ours(JOBS["ragged"], found["scores"])
    expected = torch.where(ours.mask, -SETTINGS["kl_coef"] * ours.kl, 0.0)
    theirs_at = [length if length < LENGTH else length - 1 for length in RAGGED]
    mine = expected.clone()
    for row, (length, place) in enumerate(zip(RAGGED, theirs_at, strict=True)):
        expected[row, place] += found["scores"][row]
        mine[row, length - 1] += found["scores"][row]
    longer = torch.arange(LENGTH) <= torch.tensor(RAGGED).unsqueeze(1)
    close(expected[longer], found["rewards"][longer])
    close(mine, ours.rewards)
    assert (ours.advantages - found["advantages"])[ours.mask].abs().max() > 0.01


def test_that_place_is_the_only_difference_of_their_advantages(theirs):
    """With their rewards, and the value of the place behind the end, our estimator gives their advantages."""
    found = theirs["ragged"]
    places = torch.arange(LENGTH)
    longer = places <= torch.tensor(RAGGED).unsqueeze(1)
    options = {"gamma": SETTINGS["gamma"], "lam": SETTINGS["lam"]}
    values = found["values"].masked_fill(~longer, 0.0)
    advantages, _ = advantages_and_returns(found["rewards"].masked_fill(~longer, 0.0), values, longer, **options)
    close(advantages[longer], found["advantages"][longer])


def test_their_loss_is_the_mean_of_means_of_micro_batches(theirs):
    """So a token weighs more among short responses; here all tokens of a minibatch weigh the same."""
    found, whole = theirs["parts"], theirs["ragged"]
    policy_parts = found["means"][1::2]
    assert len(policy_parts) == 4 and sum(count for _, count in policy_parts) == sum(RAGGED)
    mean_of_means = sum(mean for mean, _ in policy_parts) / 4
    by_tokens = sum(mean * count for mean, count in policy_parts) / sum(RAGGED)
    assert by_tokens == pytest.approx(whole["means"][1][0], abs=1e-6)
    assert abs(mean_of_means - by_tokens) > 1e-3


def test_their_penalty_for_a_missing_end_looks_for_another_token_than_the_one_that_stops(theirs):
    """With 19 as the stop token all responses are punished, also those that end with it."""
    job, found = JOBS["other_stop"], theirs["other_stop"]
    stopped = (job["responses"] == 19).any(dim=1)
    assert stopped.any() and not stopped.all()
    given = found["scores"]
    args = SimpleNamespace(score_clip=None, missing_eos_score=None, missing_eos_penalty=10.0)
    ours = shape_scores(given, stopped, args)
    assert ((ours - given).abs() < 1e-6).equal(stopped)
    assert (found["rewards"].min(dim=1).values < -8).all()
