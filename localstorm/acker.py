"""Tracks every tuple tree from the spout's emit to its last ack.

A tree completes exactly when every edge ever added to it is done, fails at once with the first failed
edge, and fails when its time is over; it is reported once. All edges of one hub are counted in one
process and in the order the components wrote, so a count says what Storm's XOR of random ids says, with
no chance of a collision. Not thread-safe.
"""

from collections.abc import Callable, Iterable
from itertools import count


class Tree:
    """One spout tuple and all that came of it. `outstanding` counts edges not yet acked."""

    __slots__ = ("key", "message_id", "outstanding", "owner", "started")

    def __init__(self, key: int, owner: object, message_id: bytes, started: float) -> None:
        self.key = key
        self.owner = owner
        self.message_id = message_id
        self.started = started
        self.outstanding = 0


Trees = tuple[Tree, ...]
"""The trees an edge belongs to; empty for an unanchored tuple."""


class Acker:
    """All trees in flight. `report(tree, outcome, now)` gets "ack", "fail" or "timeout", once a tree."""

    def __init__(self, timeout: float, report: Callable[[Tree, str, float], None]) -> None:
        self.timeout = timeout
        self._report = report
        self._live: dict[int, Tree] = {}
        self._keys = count(1)

    def __len__(self) -> int:
        return len(self._live)

    def open(self, owner: object, message_id: bytes, edges: int, now: float) -> Trees:
        """A new tree with its first edges; with none it is complete at once."""
        tree = Tree(next(self._keys), owner, message_id, now)
        self._live[tree.key] = tree
        tree.outstanding = edges
        if not edges:
            self._end(tree, "ack", now)
        return (tree,)

    @staticmethod
    def grow(trees: Trees, edges: int) -> None:
        """New edges, anchored to an edge of these trees that is not acked yet."""
        for tree in trees:
            tree.outstanding += edges

    def ack(self, trees: Trees, now: float) -> None:
        """One edge of these trees is done."""
        for tree in trees:
            tree.outstanding -= 1
            if not tree.outstanding and tree.key in self._live:
                self._end(tree, "ack", now)

    def fail(self, trees: Iterable[Tree], now: float) -> None:
        """The trees cannot complete any more."""
        for tree in trees:
            if tree.key in self._live:
                self._end(tree, "fail", now)

    def expire(self, now: float) -> None:
        """Fails the trees whose time is over. They are held by age, so this looks at those alone."""
        expired = []
        for tree in self._live.values():
            if tree.started + self.timeout > now:
                break
            expired.append(tree)
        for tree in expired:
            self._end(tree, "timeout", now)

    def forget(self, owner: object) -> int:
        """Drops the trees of a spout task that is gone; nobody waits for them. Says how many."""
        gone = [key for key, tree in self._live.items() if tree.owner is owner]
        for key in gone:
            del self._live[key]
        return len(gone)

    def _end(self, tree: Tree, outcome: str, now: float) -> None:
        del self._live[tree.key]
        self._report(tree, outcome, now)


def merge(several: Iterable[Trees]) -> Trees:
    """The trees of an edge with several anchors, each once."""
    return tuple({tree.key: tree for trees in several for tree in trees}.values())
