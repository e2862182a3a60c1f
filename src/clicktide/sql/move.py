"""Moves a logical shard to another DSN while writing and reading go on.

Each step leaves a state from which the same call goes on after a crash:
1. the new DSN says `incoming`, then the old one `moving`; from then on every write goes to both;
2. who is erased is copied, then everything, twice, in pages that nobody can change meanwhile (so that an erased user stays erased);
3. the new one says `active`, then the old one `moved`; from then on writes go to the new one alone;
4. after a grace for readers, what the old one still has is deleted.
Writers learn of each change in the transaction of their next write (clicktide.sql.placements).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from clicktide.errors import ClicktideError
from clicktide.sql.body import row_of
from clicktide.sql.dsn import Dsn
from clicktide.sql.placement import Entry
from clicktide.sql.placements import LOOK_S
from clicktide.sql.read import order_from
from clicktide.sql.schema import ORDER_COLUMNS, STORED_COLUMNS
from clicktide.sql.store import SqlStore
from clicktide.sql.write import write_rows

PAGE = 1000
KEYS = {"events": "event_id", "orders": "order_id"}
Report = Callable[[str, int], None]


class MoveError(ClicktideError):
    """The shard cannot be moved so."""

    code = "bad_move"


class Mover:
    """Moves shards of `store`. `now` gives ms since the epoch, `wait` lets so many seconds pass.

    `report` is told of each step and of how many rows it has dealt with.
    """

    def __init__(
        self, store: SqlStore, now: Callable[[], int], wait: Callable[[float], None], report: Report
    ) -> None:
        self._store, self._now, self._wait, self._report = store, now, wait, report

    def move(self, shard: int, to: int) -> None:
        """Move `shard` to DSN `to`, or go on with that; nothing is left to do when it is there already.

        Raises `MoveError` for a shard or DSN that is not, or one on its way elsewhere, `StoreUnavailable` when a DSN is away.
        """
        source = self._owner(shard, to)
        target = self._store.dsns[to]
        if source is not target:
            entry = self._entry(source, shard)
            if entry is not None and entry.state == "moving" and entry.dsn != to:
                raise MoveError(
                    f"shard {shard} is on its way to DSN {entry.dsn}; finish or cancel that first"
                )
            self._say(target, shard, Entry("incoming", source.index))
            self._say(source, shard, Entry("moving", to))
            # First, so that no write to the new DSN brings back who was erased before the move.
            source.write(partial(_copy_tombstones, source, target, shard))
            self._copy(source, target, shard, "copied")
            self._copy(source, target, shard, "checked")
            self._say(target, shard, Entry("active", to))
        for dsn in self._store.dsns:  # the source, also when a crash came between the two
            if self._entry(dsn, shard) == Entry("moving", to):
                self._say(dsn, shard, Entry("moved", to))
        self._clear(shard, target)

    def cancel(self, shard: int) -> None:
        """Leave a shard that is being moved where it was, and delete the copy."""
        source = self._owner(shard, 0)
        entry = self._entry(source, shard)
        if entry is None or entry.state != "moving":
            raise MoveError(f"shard {shard} is not being moved")
        self._say(source, shard, Entry("active", source.index))
        self._say(self._store.dsns[entry.dsn], shard, Entry("moved", source.index))
        self._clear(shard, source)

    def _owner(self, shard: int, to: int) -> Dsn:
        if not 0 <= shard < self._store.shards:
            raise MoveError(f"there is no shard {shard}; they are 0 to {self._store.shards - 1}")
        if not 0 <= to < len(self._store.dsns):
            raise MoveError(f"there is no DSN {to}; they are 0 to {len(self._store.dsns) - 1}")
        self._store.prepare()  # learns every DSN's map
        return self._store.dsns[self._store.dsn_of(shard)]

    def _say(self, dsn: Dsn, shard: int, entry: Entry) -> None:
        dsn.write(lambda cursor: dsn.statements.set_entry(cursor, shard, entry.state, entry.dsn, self._now()))
        dsn.write(lambda cursor: self._store.placements.fence(dsn, cursor))

    def _entry(self, dsn: Dsn, shard: int) -> Entry | None:
        return self._store.placement.entry(dsn.index, shard)

    def _copy(self, source: Dsn, target: Dsn, shard: int, step: str) -> None:
        for table in KEYS:
            # Later keys are written to both anyway; going on to them would be a race when ids grow with time.
            last = source.write(partial(_last_key, source, table, shard))
            after: str | None = ""
            done = 0
            while after is not None and after < last:
                n, after = source.write(partial(_copy_page, source, target, table, shard, after))
                done += n
                self._report(f"{table} {step}", done)

    def _clear(self, shard: int, owner: Dsn) -> None:
        """Delete what DSNs that gave the shard away still have of it, once nobody reads it there.

        Nothing is copied from there any more: it may hold what was erased since.
        """
        old = [
            dsn
            for dsn in self._store.dsns
            if dsn is not owner
            and (entry := self._entry(dsn, shard)) is not None
            and entry.state == "moved"
            and dsn.write(partial(_page, dsn, "events", shard, "", 1))
        ]
        if old:
            self._report("waiting for readers", 0)
            self._wait(2 * LOOK_S)
        for dsn in old:
            for table in ("orders", "events"):  # events last: they tell that something is left
                done = 0
                while n := dsn.write(partial(_delete_some, dsn, table, shard)):
                    done += n
                    self._report(f"{table} deleted", done)


def _page(dsn: Dsn, table: str, shard: int, after: str, limit: int, cursor: Any) -> list[tuple[Any, ...]]:
    return dsn.statements.page(cursor, table, KEYS[table], shard, after, limit)


def _last_key(dsn: Dsn, table: str, shard: int, cursor: Any) -> str:
    return dsn.statements.last_key(cursor, table, KEYS[table], shard)


def _delete_some(dsn: Dsn, table: str, shard: int, cursor: Any) -> int:
    return dsn.statements.delete_some(cursor, table, KEYS[table], shard, PAGE)


def _copy_tombstones(source: Dsn, target: Dsn, shard: int, cursor: Any) -> None:
    """Who is erased, within the transaction that keeps it from being changed."""
    for user, at_ms, lifted in source.statements.tombstones(cursor, shard):
        target.write(partial(_entomb, target, shard, user, at_ms, lifted))


def _entomb(target: Dsn, shard: int, user: str, at_ms: int, lifted: int, cursor: Any) -> None:
    target.statements.entomb(cursor, shard, user, at_ms, lifted)


def _copy_page(
    source: Dsn, target: Dsn, table: str, shard: int, after: str, cursor: Any
) -> tuple[int, str | None]:
    """Copy a page within the transaction that keeps it from being changed; answers its length and its last key."""
    page = _page(source, table, shard, after, PAGE, cursor)
    if page and table == "events":
        target.write(lambda c: write_rows(target.statements, c, [row_of(*row) for row in page]))
    elif page:
        orders = [order_from(dict(zip(ORDER_COLUMNS, row, strict=True))) for row in page]
        target.write(lambda c: target.statements.upsert_orders(c, orders))
    position = (STORED_COLUMNS if table == "events" else ORDER_COLUMNS).index(KEYS[table])
    return len(page), page[-1][position] if len(page) == PAGE else None
