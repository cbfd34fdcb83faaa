from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from orchestrator.encoders.devices import Batches


class Memory:
    """A model that holds `room` items at once and remembers the batches that fitted."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.batches: list[list[str]] = []

    def __call__(self, batch: Sequence[str]) -> list[str]:
        if len(batch) > self.room:
            raise torch.OutOfMemoryError
        self.batches.append(list(batch))
        return [item.upper() for item in batch]


ITEMS = ["a", "bbb", "cc", "ddd", "e", "ff", "ggg"]


def test_answers_come_back_in_the_order_of_the_questions_and_long_items_go_first() -> None:
    model = Memory(100)
    assert Batches(3).run(ITEMS, model, len) == [item.upper() for item in ITEMS]
    assert model.batches == [["bbb", "ddd", "ggg"], ["cc", "ff", "a"], ["e"]]


def test_running_out_of_memory_halves_the_batch_for_good() -> None:
    model, batches = Memory(3), Batches(7)
    assert batches.run(ITEMS, model, len) == [item.upper() for item in ITEMS]
    assert batches.size == 3
    batches.run(ITEMS, model, len)
    assert [len(batch) for batch in model.batches] == [3, 3, 1, 3, 3, 1]


def test_one_item_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Batches(4).run(ITEMS, Memory(0), len)


def test_unmixed_batches_hold_items_of_one_length() -> None:
    model = Memory(100)
    assert Batches(4).run(ITEMS, model, len, mixed=False) == [item.upper() for item in ITEMS]
    assert model.batches == [["bbb", "ddd", "ggg"], ["cc", "ff"], ["a", "e"]]
