"""What replay and purge do: choose letters, send them back, and take them out of `dead`.

Promises: what was sent leaves `dead` also when Ctrl-C or a broker that goes away ends the run early.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from clicktide.errors import SettingError
from clicktide.parse import Parser
from clicktide.retry import removal, replay
from clicktide.retry.letters import Filter, Key, Letter
from clicktide.retry.replay import Replay, Selection, objection
from retry.desk import READING, Desk, now_ms


class NoSuchLetter(SettingError):
    """An id names no letter (any more)."""

    code = "unknown_letter"


def must_choose(wanted: Filter, *, all_: bool, dry_run: bool) -> None:
    if wanted.everything and not (all_ or dry_run):
        raise SettingError("nothing says which dead letters: give ids, a filter, or --all")


def choose(
    desk: Desk, wanted: Filter, most: int | None, edits: dict[str, bytes], *, force: bool
) -> Selection:
    parser = Parser(desk.settings)
    objections: dict[str, str] = {}
    with desk.progress(READING) as moved:

        def checked() -> Iterator[Letter]:
            for letter in desk.letters.read(wanted, moved):
                if letter.id in edits and (why := objection(letter, edits[letter.id], parser)):
                    objections[letter.id] = why
                yield letter

        chosen = replay.select(checked(), most)
    if objections and not force:
        more = f" (and {len(objections) - 1} more)" if len(objections) > 1 else ""
        raise SettingError(f"{next(iter(objections.values()))}{more}")
    missing = wanted.ids - {id_of(desk, key) for key in chosen.newest} - chosen.refused.keys()
    if missing:
        raise NoSuchLetter(f"there is no dead letter {min(missing)}")
    return chosen


def id_of(desk: Desk, key: Key) -> str:
    return f"{key[0].removeprefix(desk.prefix)}:{key[2]}:{key[3]}"


def send(desk: Desk, chosen: Selection, edits: dict[str, bytes], rate: float, *, keep: bool) -> int:
    """Send them and take what was sent out of `dead`, also when Ctrl-C or the broker ends it early."""
    edited = frozenset(edits)
    producer, admin = desk.log.producer(), desk.log.admin()
    try:
        with desk.alone(), desk.progress("replaying", desk.still_alone) as moved:
            began, sent = time.monotonic(), 0

            def pace(n: int) -> None:
                nonlocal sent
                sent += n
                moved(sent, len(chosen))
                if rate:
                    time.sleep(max(0.0, sent / rate - (time.monotonic() - began)))

            at_once = max(1, min(500, int(rate))) if rate else 500
            work = Replay(
                desk.letters,
                producer,
                desk.prefix,
                desk.run,
                now_ms,
                lambda letters: desk.audit.letters("replay", letters, edited),
                pace,
                at_once,
            )
            try:
                work.send(chosen, edits)
            finally:
                if not keep:
                    removal.remove(desk.letters, producer, admin, chosen.by_partition(work.done), moved)
            return sent
    finally:
        producer.close()
        admin.close()


def remove_user(desk: Desk, user_id: str) -> int:
    """Take a user's letters out of `dead` for ever, named as in the events; answers how many."""
    chosen = choose(desk, Filter(user=user_id), None, {}, force=True)
    if chosen:
        remove(desk, chosen)
    return len(chosen)


def remove(desk: Desk, chosen: Selection) -> int:
    """Take them out of `dead` for ever; answers how many others had to be written again."""
    producer, admin = desk.log.producer(), desk.log.admin()
    try:
        with desk.alone(), desk.progress("removing", desk.still_alone) as moved:
            gone = [{"id": id_of(desk, key), "stage": key[4]} for key in chosen.newest]
            desk.audit.acts("purge", gone)
            drop = chosen.by_partition(chosen.newest)
            return removal.remove(desk.letters, producer, admin, drop, moved)
    finally:
        producer.close()
        admin.close()
