"""Minibatches of a rollout: every response once in each pass, trimmed, and divided by the same number of tokens."""

import pytest
import torch

from hftoolkit.rl.experience import Experience

PROMPTS, RESPONSES = torch.tensor([3, 1, 2, 2, 1, 3, 2, 1]), torch.tensor([2, 4, 1, 3, 0, 4, 2, 1])


@pytest.fixture
def experience():
    live = torch.arange(4) < RESPONSES.unsqueeze(1)
    number = 10.0 * torch.arange(8).unsqueeze(1) + torch.arange(4)  # 10 row + place
    tables = {
        name: (number + 0.1 * i) * live for i, name in enumerate(("logprobs", "values", "advantages", "returns"))
    }
    ids = 100 * torch.arange(8).unsqueeze(1) + torch.arange(8)
    return Experience(ids, PROMPTS, RESPONSES, **tables)


def minibatch(experience, number, num_parts):
    return [experience.part_of_minibatch(part, number, 4, num_parts, seed=5) for part in range(num_parts)]


def rows_of(part):
    return (part["input_ids"][:, 0] // 100).tolist()


def test_every_response_is_in_one_minibatch_of_each_pass(experience):
    passes = [[rows_of(part) for n in (p, p + 1) for part in minibatch(experience, n, 2)] for p in (0, 2)]
    for found in passes:
        assert sorted(sum(found, [])) == list(range(8))
    assert passes[0] != passes[1]  # a fresh permutation
    again = [rows_of(part) for n in (0, 1) for part in minibatch(experience, n, 2)]
    assert again == passes[0]


def test_the_number_of_parts_does_not_change_what_a_minibatch_holds(experience):
    for number in range(4):
        for parts in (2, 4):
            whole, cut = (minibatch(experience, number, n) for n in (1, parts))
            assert sorted(rows_of(whole[0])) == sorted(sum(map(rows_of, cut), []))
            assert {int(part["tokens"]) for part in cut} == {int(whole[0]["tokens"])}
            assert sum(len(part["advantages"]) for part in cut) == int(whole[0]["tokens"])


def test_a_micro_batch_is_trimmed_and_its_tokens_lie_row_by_row(experience):
    found = experience.micro_batch(torch.tensor([2, 0]), tokens=torch.tensor(3))
    assert found["input_ids"].shape == (2, 5)
    assert found["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    torch.testing.assert_close(found["old_logprobs"], torch.tensor([20.0, 0.0, 1.0]))
    torch.testing.assert_close(found["returns"], torch.tensor([20.3, 0.3, 1.3]))


def test_a_response_that_is_left_out_has_no_token(experience):
    found = experience.micro_batch(torch.tensor([4]), tokens=torch.tensor(1))
    assert found["advantages"].numel() == 0
