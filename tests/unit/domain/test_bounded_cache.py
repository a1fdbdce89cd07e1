"""A cache with a maximum size."""

from __future__ import annotations

from chalicelib.domain.bounded_cache import BoundedCache


def test_the_entry_that_was_not_used_for_longest_gives_way() -> None:
    cache = BoundedCache[str, int](2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1

    cache.put("c", 3)

    assert [cache.get(key) for key in "abc"] == [1, None, 3]
    assert len(cache) == 2


def test_a_replaced_entry_takes_no_second_place() -> None:
    cache = BoundedCache[str, int](2)
    for value in range(3):
        cache.put("a", value)
    cache.put("b", 9)

    assert (cache.get("a"), cache.get("b"), len(cache)) == (2, 9, 2)


def test_a_removed_entry_is_gone() -> None:
    cache = BoundedCache[str, int](2)
    cache.put("a", 1)

    cache.remove("a")
    cache.remove("absent")

    assert (cache.get("a"), len(cache)) == (None, 0)
