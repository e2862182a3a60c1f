"""The SQL store: writes slices idempotently, each to its DSN in one transaction, and reads them back.

A row that `write` has returned for survives the kill of any process and the loss of power. Calls raise
`StoreUnavailable` (the DSN is away; nothing or everything was written, the same call may be made again) and
`StoreRefused` (a value is at fault). Usable by several threads; one instance a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from clicktide.errors import SettingError, StoreRefused, StoreUnavailable
from clicktide.orders import Order, join
from clicktide.row import SHARD, USER_ID, Row
from clicktide.settings import Settings
from clicktide.sql import read
from clicktide.sql.dsn import Dsn
from clicktide.sql.engine import dsns_of
from clicktide.sql.placement import Placement
from clicktide.sql.placements import Placements
from clicktide.sql.read import Counts, Cursor
from clicktide.sql.schema import EVENT_COLUMNS
from clicktide.sql.schema import erased as tombstones
from clicktide.sql.statements import Statements
from clicktide.sql.write import Result, RowOutcome, Written, write_rows

T = TypeVar("T")
_HOPS = 6  # a shard is followed over so many moves in one call
SCAN_COLUMNS = (
    "event_id",
    "type",
    "user_id",
    "occurred_at",
    "received_at",
    "category_id",
    "amount",
    "order_id",
)

# Made once: making it anew costs more than the look into the index.
_LIFTED = sa.select(tombstones.c.lifted).where(
    tombstones.c.shard == sa.bindparam("shard"), tombstones.c.user_id == sa.bindparam("user_id")
)


class SqlStore:
    """The shards of `sql.dsns`. Connects at the first call that needs it."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        urls = dsns_of(settings)
        if not urls:
            raise SettingError("setting sql.dsns: expected SQLAlchemy URLs separated by blanks, got nothing")
        self.shards = settings.integer("shards.count")
        timeout_s, bulk = settings.number("sql.timeout_s"), settings.flag("sql.bulk")
        self.dsns = [Dsn(i, url, timeout_s, clock, bulk=bulk) for i, url in enumerate(urls)]
        self.placement = Placement(len(urls))
        self.erased = 0  # rows dropped since the start because their user is erased
        self.placements = Placements(self.dsns, self.placement, self.shards, clock)

    def dsn_of(self, shard: int) -> int:
        """The DSN that holds `shard`, as far as is known; asks no server."""
        return self.placement.owner(shard)

    def prepare(self) -> None:
        """Check every DSN, and on a first start lay the shards out; `write` does it by itself when it must."""
        for dsn in self.dsns:
            self.placements.introduce(dsn)

    def ping(self, dsn_index: int) -> None:
        """Whether the DSN answers; raises `StoreUnavailable` when not."""
        self.dsns[dsn_index].read(lambda c: c.exec_driver_sql("SELECT 1").all())

    def close(self) -> None:
        """Close all idle connections."""
        for dsn in self.dsns:
            dsn.close()

    # Writing

    def write(self, dsn_index: int, rows: Sequence[Row]) -> Written:
        """Write `rows` to the DSN in one transaction; again changes nothing. Rows of erased users are dropped, and counted
        in `erased`.

        Rows of a shard that has moved go to where it is now, then in a transaction for each DSN.
        """
        return self._write(dsn_index, rows, copy=False) if rows else Written(0, [])

    def write_each(self, dsn_index: int, rows: Sequence[Row]) -> list[RowOutcome]:
        """Write all of `rows` that are not refused, found by bisection; one outcome a row.

        Raises `StoreUnavailable`; then some may be written, and the same call may be made again.
        """
        try:
            written = self.write(dsn_index, rows)
        except StoreRefused as e:
            if len(rows) == 1:
                return [RowOutcome("refused", e)]
            half = len(rows) // 2
            return self.write_each(dsn_index, rows[:half]) + self.write_each(dsn_index, rows[half:])
        conflicts = set(written.conflicts)
        return [RowOutcome("conflict" if i in conflicts else "stored") for i in range(len(rows))]

    def _write(self, dsn_index: int, rows: Sequence[Row], *, copy: bool, hops: int = _HOPS) -> Written:
        dsn = self.dsns[dsn_index]
        shards = {row[SHARD] for row in rows}

        def work(cursor: Any) -> tuple[Result, int] | None:
            self.placements.fence(dsn, cursor)
            if not all(self.placement.accepts(dsn_index, shard, copy=copy) for shard in shards):
                return None
            users = self.placements.erased(dsn)
            left = (
                [i for i, row in enumerate(rows) if row[USER_ID] not in users] if users else range(len(rows))
            )
            if len(left) == len(rows):
                return write_rows(dsn.statements, cursor, rows), 0
            (new, conflicts), kept = write_rows(dsn.statements, cursor, [rows[i] for i in left])
            return Result(Written(new, [left[i] for i in conflicts]), kept), len(rows) - len(left)

        done = dsn.write(work)
        if done is None:
            if not hops:
                raise StoreUnavailable(dsn.store, "a shard moves faster than it can be followed")
            return self._scatter(dsn_index, rows, copy=copy, hops=hops - 1)
        result, erased = done
        self.erased += 0 if copy else erased
        for target, moving in self.placement.targets(dsn_index, shards).items():
            # Only what is stored here: a row that was kept out must not be the first one there.
            if kept := [row for row in result.kept if row[SHARD] in moving]:
                self._write(target, kept, copy=True)
        return result.written

    def _scatter(self, refused_by: int, rows: Sequence[Row], *, copy: bool, hops: int) -> Written:
        places: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            here = self.placement.accepts(refused_by, row[SHARD], copy=copy)
            place = refused_by if here else self.placement.next(refused_by, row[SHARD])
            places.setdefault(place, []).append(i)
        new, conflicts = 0, []
        for dsn_index, positions in places.items():
            again = copy and dsn_index == refused_by
            written = self._write(dsn_index, [rows[i] for i in positions], copy=again, hops=hops)
            new += written.new
            conflicts += [positions[i] for i in written.conflicts]
        return Written(new, sorted(conflicts))

    # Reading

    def events_of_user(
        self,
        shard: int,
        user_id: str,
        types: Collection[str] | None = None,
        since: int | None = None,
        until: int | None = None,
        before_cursor: Cursor | None = None,
        limit: int = 100,
    ) -> list[Row]:
        """The user's rows, newest first by (occurred_at, event_id).

        since <= occurred_at < until (ms); strictly before `before_cursor`, the last row of the page before.
        """
        return self._at_owner(
            shard,
            lambda c: read.events_of_user(c, shard, user_id, types, since, until, before_cursor, limit),
        )

    def at_owner(self, shard: int, work: Callable[[Connection], T]) -> T:
        """`work` on a connection to the DSN that holds `shard`; it reads only, and may run again on another one."""
        return self._at_owner(shard, work)

    def at_owner_of_all(
        self, dsn_index: int, shards: Collection[int], work: Callable[[Connection], T]
    ) -> T | None:
        """As `at_owner`, where the DSN holds all of `shards`; None where it does not."""
        found = self._at_holder(self.dsns[dsn_index], shards, work)
        return None if found is None else found[0]

    def at_dsn(self, dsn_index: int, work: Callable[[Connection, list[int]], T]) -> T:
        """`work` on a connection to the DSN and the shards that it holds; it reads only, and may run again."""
        dsn = self.dsns[dsn_index]

        def here(connection: Connection) -> T:
            self.placements.look(dsn, connection)
            return work(connection, self._held(dsn_index))

        return dsn.read(here)

    def event(self, event_id: str) -> Row | None:
        """The row of an event, looked for in all shards; raises `StoreUnavailable` when one that may have it is away."""
        found = self._everywhere(lambda c, shards: read.event(c, shards, event_id), enough=bool)
        return next((row for row in found if row is not None), None)

    def order(self, order_id: str) -> Order | None:
        """The order, looked for in all shards; raises `StoreUnavailable` when a DSN is away."""
        found: Order | None = None
        for one in self._everywhere(lambda c, shards: read.order(c, shards, order_id)):
            if one is not None:
                found = one if found is None else join(found, one)
        return found

    def counts(self) -> Counts:
        """How much is stored in all DSNs: reads all of them, for tests, the ledger and operators."""
        parts = self._everywhere(read.counts)
        by_type: dict[str, int] = {}
        for part in parts:
            for kind, n in part.by_type.items():
                by_type[kind] = by_type.get(kind, 0) + n
        return Counts(sum(p.events for p in parts), by_type, sum(p.orders for p in parts))

    def scan_events(
        self, dsn_index: int, columns: Sequence[str] = SCAN_COLUMNS, page: int = 5000
    ) -> Iterator[tuple[Any, ...]]:
        """Every event of the DSN's shards, by shard and id, as tuples of `columns`; in bounded memory.

        Names are those of row.COLUMNS, but `log_partition` and `log_offset`. Events that are written meanwhile may or may
        not be among them.
        """
        unknown = set(columns) - set(EVENT_COLUMNS)
        if unknown:
            raise ValueError(f"unknown columns {sorted(unknown)}; there are {', '.join(EVENT_COLUMNS)}")
        for shard in self.shards_at(dsn_index):
            with self.dsns[dsn_index].connection() as connection:
                for found in read.scan_events(connection, shard, columns, page):
                    yield from found

    def scan_orders(self, dsn_index: int, page: int = 5000) -> Iterator[Order]:
        """Every order of the DSN's shards, by shard and id, in bounded memory."""
        for shard in self.shards_at(dsn_index):
            with self.dsns[dsn_index].connection() as connection:
                for found in read.scan_orders(connection, shard, page):
                    yield from found

    def erase_user(self, shard: int, user_id: str) -> dict[str, int]:
        """Delete all events and orders of the user; answers `{"events": n, "orders": n}`, nothing left to find."""
        return self._change(self.dsn_of(shard), shard, lambda s, cursor: s.erase_user(cursor, shard, user_id))

    def entomb(self, shard: int, user_id: str, now_ms: int, *, lifted: bool = False) -> None:
        """From when this returns on, rows of the user are dropped by every writer (`lifted`: are written again)."""

        def say(statements: Statements, cursor: Any) -> bool:
            statements.entomb(cursor, shard, user_id, now_ms, int(lifted))
            return True

        self._change(self.dsn_of(shard), shard, say, alone=True)

    def erased_users(self, shard: int) -> list[str]:
        """The shard's erased users."""
        query = sa.select(tombstones.c.user_id).where(tombstones.c.shard == shard, tombstones.c.lifted == 0)
        return self._at_owner(shard, lambda c: [str(user) for user in c.execute(query).scalars()])

    def is_erased(self, shard: int, user_id: str) -> bool:
        """Whether the user is erased, as the owner of the shard says now."""
        given = {"shard": shard, "user_id": user_id}
        return self._at_owner(shard, lambda c: c.execute(_LIFTED, given).scalar()) == 0

    def _change(
        self,
        dsn_index: int,
        shard: int,
        change: Callable[[Statements, Any], T],
        *,
        alone: bool = False,
        copy: bool = False,
        hops: int = _HOPS,
    ) -> T:
        """`change` in a transaction at the DSN that holds the shard, then at the one that it is being moved to; `alone` with
        no write under way."""
        dsn = self.dsns[dsn_index]

        def work(cursor: Any) -> T | None:
            if alone:  # at once: two that held the shared lock both would wait for each other
                dsn.statements.version(cursor, exclusive=True)
            self.placements.fence(dsn, cursor)
            if not self.placement.accepts(dsn_index, shard, copy=copy):
                return None
            return change(dsn.statements, cursor)

        gone = dsn.write(work)
        if gone is None:
            if not hops:
                raise StoreUnavailable(dsn.store, "a shard moves faster than it can be followed")
            following = self.placement.next(dsn_index, shard)
            return self._change(following, shard, change, alone=alone, hops=hops - 1)
        for target in self.placement.targets(dsn_index, [shard]):
            self._change(target, shard, change, alone=alone, copy=True)
        return gone

    def shards_at(self, dsn_index: int) -> list[int]:
        """The logical shards that the DSN holds, by what it says itself."""
        dsn = self.dsns[dsn_index]
        dsn.read(lambda c: self.placements.look(dsn, c))
        return self._held(dsn_index)

    def _held(self, dsn_index: int) -> list[int]:
        return [s for s in range(self.shards) if self.placement.accepts(dsn_index, s, copy=False)]

    def _at_owner(self, shard: int, work: Callable[[Connection], T]) -> T:
        dsn = self.dsns[self.dsn_of(shard)]
        for hop in range(_HOPS):
            found = self._at_holder(dsn, (shard,), work, now=hop > 0)
            if found is not None:
                return found[0]
            dsn = self.dsns[self.placement.next(dsn.index, shard)]
        raise StoreUnavailable(dsn.store, "a shard moves faster than it can be followed")

    def _at_holder(
        self, dsn: Dsn, shards: Collection[int], work: Callable[[Connection], T], *, now: bool = False
    ) -> tuple[T] | None:
        """What `work` answers at the DSN; None where it does not hold all of `shards`, as it said lately, or says `now`."""

        def here(connection: Connection) -> tuple[T] | None:
            self.placements.look(dsn, connection, now=now)
            held = all(self.placement.accepts(dsn.index, shard, copy=False) for shard in shards)
            return (work(connection),) if held else None

        return dsn.read(here)

    def _everywhere(
        self, work: Callable[[Connection, list[int]], T], enough: Callable[[T], bool] | None = None
    ) -> list[T]:
        """`work` at every DSN over the shards it holds, until it is enough; a DSN that is away is asked of last."""
        found: list[T] = []
        away: StoreUnavailable | None = None
        for dsn in self.dsns:
            try:
                found.append(self.at_dsn(dsn.index, work))
            except StoreUnavailable as e:
                away = away or e
                continue
            if enough is not None and enough(found[-1]):
                return found
        if away is not None:
            raise away
        return found
