"""Rows grouped by length: an order that follows from seed and pass, however much randomness came before."""

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from hftoolkit.training.ordered_evaluation import OrderOfThePass


def order(seed, number, lengths=tuple(range(40)) * 5):
    torch.rand(number + seed)  # what a resumed run has not drawn
    return list(OrderOfThePass(LengthGroupedSampler(4, lengths=list(lengths)), seed, lambda: number))


def test_the_order_is_that_of_the_seed_and_the_pass():
    assert order(0, 1) == order(0, 1)
    orders = [order(seed, number) for seed in (0, 1) for number in (0, 1)]
    assert len({tuple(found) for found in orders}) == 4
    assert all(sorted(found) == list(range(200)) for found in orders)
    assert len(OrderOfThePass(LengthGroupedSampler(4, lengths=[1, 2, 3]), 0, lambda: 0)) == 3


def test_the_law_notices_the_stock_sampler():
    stock = LengthGroupedSampler(4, lengths=list(range(40)) * 5)
    torch.manual_seed(0)
    assert list(stock) != list(stock)
