"""The checks of SQL and `dead` against the truth: by id, by content, per type, money per category and minute, orders."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from bench.ledger.dead_side import DeadSide
from bench.ledger.expected import AMOUNT, CATEGORY, CONTENT, ORDER, TYPE, USER, Content, Expected
from bench.ledger.report import Check, compare, money
from bench.ledger.sql_side import Row, SqlSide
from clicktide.orders import Order, Transition

_STEPS = {"order": "ordered", "pay": "paid", "refund": "refunded"}
_NOT_SQL = ("redis",)  # a letter from there says nothing of SQL


class Sides(NamedTuple):
    """What is compared; SQL and the dead letters, by id."""

    expected: Expected
    sql: SqlSide
    dead: DeadSide

    def dead_for_sql(self, event_id: str) -> bool:
        """Whether a dead letter accounts for the event's absence from SQL."""
        return any(
            letter.code != "id_conflict" and not letter.stage.startswith(_NOT_SQL)
            for letter in self.dead.events.get(event_id, ())
        )

    def may_lack(self, event_id: str) -> bool:
        """Whether SQL may do without the event: its acceptance is unknown, or it is dead-lettered."""
        return event_id in self.expected.unknown or self.dead_for_sql(event_id)


def checks(sides: Sides) -> Iterator[Check]:
    """All of them, in the order they are printed."""
    yield stored(sides)
    yield once(sides)
    yield extra(sides)
    yield content(sides)
    yield times(sides)
    yield duplicates(sides)
    yield malformed(sides)
    yield late(sides)
    yield types(sides)
    yield from sums(sides)
    yield orders(sides)


def sent_before(sides: Sides) -> int:
    """Take the times of rows that came in before the truth's records were sent as times that were sent; how many.

    The same file replayed again under the same label has the same ids at other times, and changes nothing.
    """
    expected = sides.expected
    found = 0
    for i, row in sides.sql.rows.items():
        if row.received_at < expected.facts[i].sent_at and row.occurred_at not in expected.times(i):
            expected.other_times.setdefault(i, set()).add(row.occurred_at)
            found += 1
    return found


def stored(sides: Sides) -> Check:
    """P1: every accepted id is in SQL, or dead-lettered."""
    expected, sql = sides.expected, sides.sql
    accepted = [i for i in expected.facts if i not in expected.unknown]
    dead = [i for i in accepted if i not in sql.rows and sides.dead_for_sql(i)]
    missing = [i for i in accepted if i not in sql.rows and not sides.dead_for_sql(i)]
    rows = sum(i in sql.rows for i in accepted)
    found = f"{rows + len(dead)}" + (f" ({len(dead)} of them dead)" if dead else "")
    wrong = (f"missing {i}" for i in missing)
    return compare("accepted events are stored or dead", len(accepted), found, wrong, ok=not missing)


def once(sides: Sides) -> Check:
    """P2: no id has two rows, and each is in its user's shard."""
    sql = sides.sql
    wrong = [f"twice {i}" for i in sql.twice] + [f"in another shard {i}" for i in sql.misplaced]
    return compare("rows for these ids", len(sql.rows), len(sql.rows) + len(sql.twice), wrong)


def extra(sides: Sides) -> Check:
    """No row has an id of this run that was never accepted as an event."""
    return compare("rows of this run beyond the truth", 0, len(sides.sql.extra), sides.sql.extra)


def content(sides: Sides) -> Check:
    """Every row says what was sent."""
    facts = sides.expected.facts
    wrong = [
        f"{i} {_difference(facts[i].content, row.content)}"
        for i, row in sides.sql.rows.items()
        if row.content != facts[i].content
    ]
    return compare(
        "rows that say what was sent", len(sides.sql.rows), len(sides.sql.rows) - len(wrong), wrong
    )


def times(sides: Sides) -> Check:
    """Every row has a time that the event was sent with."""
    rows = sides.sql.rows
    wrong = [
        f"{i} {row.occurred_at - sides.expected.facts[i].occurred_at:+} ms"
        for i, row in rows.items()
        if row.occurred_at != sides.expected.facts[i].occurred_at
        and row.occurred_at not in sides.expected.times(i)
    ]
    return compare("rows with the time that was sent", len(rows), len(rows) - len(wrong), wrong)


def _difference(sent: Content, found: Content) -> str:
    return ", ".join(
        f"{name} {was!r} became {now!r}"
        for name, was, now in zip(CONTENT, sent, found, strict=True)
        if was != now
    )


def duplicates(sides: Sides) -> Check:
    """What was sent again left no trace: no second row (see above), no dead letter."""
    sent = sides.expected.duplicates
    wrong = [f"dead-lettered as conflict {i}" for i in sent if sides.dead.conflicting(i)]
    return compare("duplicates dropped", sent.total(), sent.total() - len(wrong), wrong)


def malformed(sides: Sides) -> Check:
    """Every malformed record that was accepted lies on `dead`, byte for byte, with a code."""
    expected, dead = sides.expected, sides.dead
    wrong = [
        f"not dead: {expected.samples[key]}"
        for key, n in expected.malformed.items()
        if len(dead.malformed.get(key, ())) < n
    ]
    found = sum(min(n, len(dead.malformed.get(key, ()))) for key, n in expected.malformed.items())
    wrong += [f"without a code: {sample}" for sample in dead.without_code]
    return compare("malformed records dead, verbatim, with a code", expected.malformed.total(), found, wrong)


def late(sides: Sides) -> Check:
    """Late events came late: what the truth calls late happened longer ago than `events.late_after_h`, others not."""
    facts, rows = sides.expected.facts, sides.sql.rows
    limit_ms = sides.sql.late_after_ms
    expected = sum(facts[i].late for i in rows)
    found = 0
    wrong = []
    for i, row in rows.items():
        is_late = row.received_at - row.occurred_at > limit_ms
        found += is_late
        # A replay with dates of its own knows no kinds: its events may be late without saying so.
        if facts[i].late and not is_late:
            wrong.append(f"counted as in time {i}")
    return compare(
        "late events", expected, found, wrong, ok=not wrong and (found == expected or not sides.expected.runs)
    )


def types(sides: Sides) -> Check:
    """Per type: as many rows as were accepted and not dead-lettered."""
    rows = sides.sql.rows
    expected = Counter(
        fact.content[TYPE] for i, fact in sides.expected.facts.items() if i in rows or not sides.may_lack(i)
    )
    found = Counter(row.content[TYPE] for row in rows.values())
    for twice in sides.sql.twice:
        found[rows[twice].content[TYPE]] += 1
    return compare("rows by type", _counted(expected), _counted(found))


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items())) or "none"


def sums(sides: Sides) -> Iterator[Check]:
    """P3: pays and refunds per category and minute of event time, to the cent."""
    rows = sides.sql.rows
    for event_type, name in (("pay", "GMV"), ("refund", "refunds")):
        expected: defaultdict[tuple[str, int], int] = defaultdict(int)
        found: defaultdict[tuple[str, int], int] = defaultdict(int)
        for i, fact in sides.expected.facts.items():
            if fact.content[TYPE] == event_type and (i in rows or not sides.may_lack(i)):
                at = _time_of(sides, i, rows.get(i))
                expected[fact.content[CATEGORY] or "", at // 60_000] += fact.content[AMOUNT]
        for i in (*rows, *sides.sql.twice):
            row = rows[i]
            if row.content[TYPE] == event_type:
                found[row.content[CATEGORY] or "", row.occurred_at // 60_000] += row.content[AMOUNT] or 0
        wrong = (
            f"{category or 'no category'} minute {minute * 60}: {money(expected[category, minute])} became "
            f"{money(found[category, minute])}"
            for category, minute in sorted({*expected, *found})
            if expected[category, minute] != found[category, minute]
        )
        yield compare(
            f"{name} by category and minute in SQL ({len(expected)} cells)",
            money(sum(expected.values())),
            money(sum(found.values())),
            wrong,
        )


def _time_of(sides: Sides, event_id: str, row: Row | None) -> int:
    """The event's time; of those it was sent with, the one that is stored."""
    if row is not None and row.occurred_at in sides.expected.times(event_id):
        return row.occurred_at
    return sides.expected.facts[event_id].occurred_at


def orders(sides: Sides) -> Check:
    """Every order's steps are those that its events make: of each kind the first, by time and id."""
    rows = sides.sql.rows
    expected: dict[str, dict[str, str]] = {}
    users: dict[str, str] = {}
    for i, fact in sides.expected.facts.items():
        step = _STEPS.get(fact.content[TYPE])
        if step is None or (i not in rows and sides.may_lack(i)):
            continue
        steps = expected.setdefault(fact.content[ORDER], {})
        users[fact.content[ORDER]] = fact.content[USER]
        known = steps.get(step)
        if known is None or (fact.occurred_at, i) < (sides.expected.facts[known].occurred_at, known):
            steps[step] = i
    wrong = []
    for order_id, steps in expected.items():
        found = sides.sql.orders.get(order_id, [])
        if (problem := _order_problem(sides, steps, users[order_id], found)) is not None:
            wrong.append(f"{order_id} {problem}")
    return compare("orders in the state of their events", len(expected), len(expected) - len(wrong), wrong)


def _order_problem(sides: Sides, steps: dict[str, str], user: str, found: list[Order]) -> str | None:
    if len(found) != 1:
        return "is missing" if not found else f"is stored {len(found)} times"
    if found[0].user_id != user:
        return f"belongs to {found[0].user_id} instead of {user}"
    for step in _STEPS.values():
        is_: Transition | None = getattr(found[0], step)
        event_id = steps.get(step)
        if event_id is None and is_ is None:
            continue
        if event_id is None or is_ is None:
            return f"{step} {'wrongly' if event_id is None else 'not'}"
        amount = sides.expected.facts[event_id].content[AMOUNT]
        if (is_.event, is_.amount) != (event_id, amount) or is_.at not in sides.expected.times(event_id):
            return f"{step} by {is_.event} for {is_.amount}, expected {event_id} for {amount}"
    return None
