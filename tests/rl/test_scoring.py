"""Reward functions: what they are given, what is refused, and what happens to their numbers."""

import math
from types import SimpleNamespace

import pytest
import torch

from hftoolkit.errors import DataError
from hftoolkit.rl.scoring import RunningNorm, call_reward, combined_scores, function_name, shape_scores, unique_names

PROMPTS, COMPLETIONS = ["ask", "say"], ["one", "three"]
NOTHING = dict(score_clip=None, missing_eos_score=None, missing_eos_penalty=None)


def length(prompts, completions, **columns):
    return [len(text) for text in completions]


def test_a_function_gets_the_columns_it_asks_for():
    def right(prompts, completions, answer):
        return [float(text == true) for text, true in zip(completions, answer, strict=True)]

    scores, applies = call_reward(right, PROMPTS, COMPLETIONS, [[1], [2]], {"answer": ["one", "two"], "other": [0, 0]})
    assert scores.tolist() == [1, 0] and applies.all()
    seen = {}
    call_reward(lambda **given: seen.update(given) or [0, 0], PROMPTS, COMPLETIONS, [[1], [2]], {"other": [5, 6]})
    assert seen == dict(prompts=PROMPTS, completions=COMPLETIONS, completion_ids=[[1], [2]], other=[5, 6])


def test_a_tensor_is_as_good_as_a_list_and_none_does_not_apply():
    scores, applies = call_reward(lambda **_: torch.tensor([0.5, 2]), PROMPTS, COMPLETIONS, [], {})
    assert scores.tolist() == [0.5, 2] and applies.tolist() == [True, True]
    scores, applies = call_reward(lambda **_: [None, 2], PROMPTS, COMPLETIONS, [], {})
    assert scores.tolist() == [0, 2] and applies.tolist() == [False, True]


def test_a_function_that_raises_or_gives_too_few_is_named():
    def broken(prompts, completions):
        raise KeyError("answer")

    with pytest.raises(
        DataError, match="broken raised KeyError: 'answer', for the completion 'one' of the prompt 'ask'"
    ):
        call_reward(broken, PROMPTS, COMPLETIONS, [], {})
    with pytest.raises(
        DataError, match="KeyError: 'answer', for 2 responses together, and for each of them alone too"
    ):
        call_reward(broken, PROMPTS, COMPLETIONS, [], {}, "skip")
    with pytest.raises(DataError, match="gave 1 scores for 2 completions"):
        call_reward(lambda **_: [1.0], PROMPTS, COMPLETIONS, [], {})
    for wrong in (None, 1.0, ["high", "low"], torch.ones(2, 3), [2**2000, 1]):
        with pytest.raises(DataError, match="it has to give a list with one number, or None, for each completion"):
            call_reward(lambda given=wrong, **_: given, PROMPTS, COMPLETIONS, [], {})


def test_a_function_that_raises_for_some_or_only_for_all_together():
    def short(prompts, completions, number):
        if any(len(text) > 3 for text in completions):
            raise ValueError("too long")
        return number

    found, applies = call_reward(short, PROMPTS, COMPLETIONS, [], {"number": [4, 5]}, "skip")
    assert found[0] == 4 and found[1].isnan() and applies.all()

    def single(completions):
        if len(completions) > 1:
            raise ValueError("one at a time")
        return [1.0]

    with pytest.raises(
        DataError, match="one at a time, for 2 responses together, and for none of them alone; the first"
    ):
        call_reward(single, PROMPTS, COMPLETIONS, [], {}, "skip")


def test_equal_names_are_told_apart():
    assert unique_names([length, length, max, length]) == ["length", "length_2", "max", "length_3"]


def test_weights_and_functions_that_do_not_apply():
    parts = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    applies = torch.tensor([[True, True], [True, False]])
    found = combined_scores(parts, applies, torch.tensor([1.0, 10.0]), ["a", "b"], PROMPTS, COMPLETIONS)
    assert found.tolist() == [21, 3]


def test_a_function_of_weight_0_neither_gives_a_score_nor_takes_it_away():
    """The first response has none from the judge, the second a NaN from what is only reported."""
    parts = torch.tensor([[0.0, 2.0], [3.0, math.nan]])
    applies = torch.tensor([[False, True], [True, True]])
    given = (parts, applies, torch.tensor([1.0, 0.0]), ["judge", "shown"], PROMPTS, COMPLETIONS)
    found = combined_scores(*given, on_error="skip")
    assert found[0].isnan() and found[1] == 3
    with pytest.raises(DataError, match="1 of 2 responses have no score: judge gave None for the completion 'one'"):
        combined_scores(*given)


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_a_score_that_is_no_number_stops_or_leaves_the_row_out(bad):
    parts = torch.tensor([[1.0], [0.0 if bad is None else bad]])
    applies = torch.tensor([[True], [bad is not None]])
    given = (parts, applies, torch.ones(1), ["judge"], PROMPTS, COMPLETIONS)
    with pytest.raises(DataError, match=f"1 of 2 responses.*judge gave {bad} .*'three' of the prompt 'say'"):
        combined_scores(*given)
    kept = combined_scores(*given, on_error="skip")
    assert kept[0] == 1 and kept[1].isnan()


def test_the_running_norm_is_that_of_all_scores_so_far():
    norm, generator = RunningNorm(), torch.Generator().manual_seed(0)
    parts = [3 * torch.randn(n, generator=generator, dtype=torch.float64) + 7 for n in (4, 1, 9)]
    for part in parts:
        norm.update(part)
    every = torch.cat(parts)
    torch.testing.assert_close(norm(every), (every - every.mean()) / every.std(correction=0))


def test_scores_are_normalised_then_clipped_then_punished():
    scores, ended = torch.tensor([5.0, -9.0, 1.0]), torch.tensor([True, True, False])
    clip = SimpleNamespace(**NOTHING | {"score_clip": 2.0})
    assert shape_scores(scores, ended, clip).tolist() == [2, -2, 1]
    assert shape_scores(scores, ended, clip, norm=lambda x: x / 10).tolist() == pytest.approx([0.5, -0.9, 0.1])
    penalty = SimpleNamespace(**NOTHING | {"missing_eos_penalty": 3.0})
    assert shape_scores(scores, ended, penalty).tolist() == [5, -9, -2]
    replaced = SimpleNamespace(**NOTHING | {"missing_eos_score": -1.0})
    assert shape_scores(scores, ended, replaced).tolist() == [5, -9, -1]


def test_names():
    class Judge:
        def __call__(self, prompts, completions):
            return [0.0]

    assert (function_name(length), function_name(Judge())) == ("length", "Judge")
