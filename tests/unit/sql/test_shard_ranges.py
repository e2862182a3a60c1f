"""How `./tide shards show` writes down which shards a DSN holds."""

from __future__ import annotations

import pytest

from cli.shards import ranges


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([5], "5"),
        ([1, 2], "1-2"),
        ([0, 2, 4, 5, 6], "0, 2, 4-6"),
        (list(range(64)), "0-63"),
        (list(range(1, 64, 2)), "1-63 by 2"),
        ([0, 3, 6, 7], "0, 3, 6-7"),
    ],
)
def test_ranges(numbers, text):
    assert ranges(numbers) == text
