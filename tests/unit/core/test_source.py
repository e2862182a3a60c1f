"""The source on a real (embedded) log: cutting, committing, failing, searching, rewinding. Nothing here sleeps."""

from __future__ import annotations

import dataclasses

import pytest
from unit.core.rig import GROUP, LIMITS, TOPIC, Rig, all_of, offsets

from clicktide.errors import LogUnavailable, OffsetOutOfRange
from clicktide.log.port import TopicPartition
from clicktide.parse import topic_digest
from clicktide.source import retry_names


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def limits(**changes):
    return dataclasses.replace(LIMITS, **changes)


# -- cutting


def test_what_a_slice_says(rig):
    rig.write(2, headers=(("h", b"1"),))
    (found,) = all_of(rig.source())
    topic_id = rig.admin.topics()[TOPIC].id
    assert found.place == (TOPIC, topic_id, topic_digest(topic_id), 0)
    assert (found.offsets, found.values) == ([0, 1], [b"value-0", b"value-1"])
    assert found.timestamps == [rig.wall_ms] * 2
    assert found.headers == [(("h", b"1"),)] * 2
    assert not found.poison


def test_headers_are_none_where_there_are_none(rig):
    rig.write(1)
    assert all_of(rig.source())[0].headers is None


@pytest.mark.parametrize("pattern", ["hp", "ph", "hph", "php", "hhp"])
def test_headers_stay_with_their_records(rig, pattern):
    """h: a record with headers, p: a plain one, each read by a poll of its own."""
    source = rig.source(limits=limits(wait_s=1.0, slice_records=10))
    for letter in pattern:
        rig.write(1, headers=(("h", b"1"),) if letter == "h" else ())
        assert source.next(0.0) is None
    rig.clock.pass_(1.0)
    (found,) = all_of(source)
    assert found.headers == [(("h", b"1"),) if letter == "h" else () for letter in pattern]


def test_cut_by_count_then_by_time(rig):
    source = rig.source(limits=limits(wait_s=0.02, in_flight=10))
    rig.write(9)
    assert offsets(all_of(source)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    rig.clock.pass_(0.019)
    assert source.next(0.0) is None
    rig.clock.pass_(0.002)
    assert offsets(all_of(source)) == [[8]]


def test_a_waiting_slice_is_waited_for_once_and_not_asked_for_again_and_again(rig):
    source = rig.source(limits=limits(wait_s=0.05))
    rig.write(1)
    waits = []
    poll = source._consumer.poll
    source._consumer.poll = lambda records, timeout_s: waits.append(timeout_s) or poll(records, 0.0)
    assert source.next(0.02) is None  # read, and not ripe yet
    rig.clock.pass_(0.04)
    assert source.next(0.02) is None
    rig.clock.pass_(0.02)
    assert offsets([source.next(0.02)]) == [[0]]
    # With nothing there as long as the spout says, then until the slice is ripe.
    assert waits == pytest.approx([0.02, 0.01])


def test_slices_in_flight_are_bounded(rig):
    source = rig.source()
    rig.write(20)
    found = all_of(source)
    assert offsets(found) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    source.ack(found[1].id)
    assert offsets(all_of(source)) == [[12, 13, 14, 15]]
    source.fail(found[0].id)
    assert source.next(0.0) is None, "one that waits to come again counts too"
    assert source.positions()[f"{TOPIC}:0"]["failed"] == 1


def test_slice_ids_differ_over_lives(rig):
    rig.write(1)
    assert all_of(rig.source())[0].id != all_of(rig.source())[0].id


def test_every_partition_gets_its_turn(tmp_path):
    rig = Rig(tmp_path, partitions=3)
    source = rig.source(limits=limits(in_flight=30))
    rig.write(40, partition=0)
    rig.write(1, partition=1)
    rig.write(1, partition=2)
    first = [s.place.partition for s in all_of(source)[:4]]
    assert {0, 1, 2} <= set(first)


def test_tasks_share_the_partitions(tmp_path):
    rig = Rig(tmp_path, partitions=5)
    for partition in range(5):
        rig.write(1, partition=partition)
    per_task = [
        {s.place.partition for s in all_of(rig.source(task, 3, limits(in_flight=9)))} for task in range(3)
    ]
    assert per_task == [{0, 3}, {1, 4}, {2}]


def test_more_tasks_than_partitions(rig):
    rig.write(1)
    idle = rig.source(task=1, tasks=2)
    assert all_of(idle) == []
    idle.commit(force=True)
    assert idle.idle()


@pytest.mark.parametrize(("start", "expected"), [("earliest", [[0, 1, 2]]), ("latest", [])])
def test_where_a_partition_without_a_commit_starts(rig, start, expected):
    rig.write(3)
    source = rig.source(limits=limits(start=start))
    assert offsets(all_of(source)) == expected
    rig.write(1)
    assert offsets(all_of(source)) == [[3]]


def test_a_start_at_a_moment(rig):
    for _ in range(3):
        rig.write(2)
        rig.wall_ms += 1000
    source = rig.source(limits=limits(start=str(rig.wall_ms - 2500)))
    assert offsets(all_of(source)) == [[2, 3, 4, 5]]


@pytest.mark.parametrize("start", ["latest", "future"])
def test_a_restart_does_not_choose_its_start_again(rig, start):
    start = str(rig.wall_ms + 5000) if start == "future" else start
    rig.write(3)
    assert all_of(rig.source(limits=limits(start=start))) == []
    rig.write(2)  # nobody reads it before the task dies
    assert offsets(all_of(rig.source(limits=limits(start=start)))) == [[3, 4]]


@pytest.mark.parametrize("broken", ["commit", "assign", "offsets_at"])
def test_a_start_that_cannot_be_written_down_is_chosen_anew(rig, broken):
    rig.write(3)
    moment = str(rig.wall_ms + 1)
    rig.log.fail_next(broken, LogUnavailable("away"))
    source = rig.source(limits=limits(start=moment))
    found = all_of(source)
    rig.clock.pass_(2.0)
    assert found + all_of(source) == []
    assert rig.committed() == 3


def test_what_is_added_to_a_topic_that_is_read_is_read_whole(rig):
    source = rig.source(limits=limits(start="latest", in_flight=9))
    all_of(source)
    rig.write(1)
    all_of(source)
    rig.admin.add_partitions(TOPIC, 2)
    rig.write(2, partition=1)
    rig.clock.pass_(11.0)
    assert sorted(tuple(s.offsets) for s in all_of(source)) == [
        (0,),
        (0, 1),
    ]  # what was in flight comes again


def test_a_commit_wins_over_the_start(rig):
    rig.write(3)
    rig.log.consumer(GROUP).commit({TopicPartition(TOPIC, 0): 1})
    assert offsets(all_of(rig.source(limits=limits(start="latest")))) == [[1, 2]]


def test_nothing_is_cut_while_no_store_answers(rig):
    source = rig.source()
    rig.write(4)
    rig.watch.all_away = True
    assert source.next(0.0) is None
    rig.watch.all_away = False
    assert offsets(all_of(source)) == [[0, 1, 2, 3]]


# -- committing


def test_commits_follow_the_acks_after_the_delay(rig):
    source = rig.source()
    rig.write(8)
    first, second = all_of(source)
    source.ack(second.id)
    rig.settle(source)
    assert rig.committed() is None
    source.ack(first.id)
    acked_at = rig.clock()
    rig.clock.now = acked_at + 4.99
    source.commit(force=True)
    assert rig.committed() is None
    rig.clock.now = acked_at + 5.0
    source.commit(force=True)
    assert rig.committed() == 8
    assert source.positions() == {
        f"{TOPIC}:0": {"done": 8, "committed": 8, "timestamp": rig.wall_ms, "failed": 0},
    }


def test_a_commit_needs_the_watch_to_have_looked_since(rig):
    source = rig.source()
    rig.write(1)
    source.ack(all_of(source)[0].id)
    rig.watch.checked_at = rig.clock()
    rig.settle(source)
    assert rig.committed() is None, "looked before the delay was over"
    rig.watch.checked_at = None
    rig.settle(source)
    assert rig.committed() == 1


def test_nothing_is_committed_while_redis_does_not_answer(rig):
    source = rig.source()
    rig.write(1)
    source.ack(all_of(source)[0].id)
    rig.watch.run_id = None
    rig.settle(source)
    assert rig.committed() is None


def test_next_commits_now_and_then(rig):
    source = rig.source()
    rig.write(1)
    source.ack(all_of(source)[0].id)
    rig.clock.pass_(6.0)
    source.next(0.0)
    assert rig.committed() == 1


def test_a_restart_goes_on_from_the_commit(rig):
    source = rig.source()
    rig.write(8)
    first, _second = all_of(source)
    source.ack(first.id)
    rig.settle(source)
    assert offsets(all_of(rig.source())) == [[4, 5, 6, 7]]


def test_unknown_ids_are_ignored(rig):
    source = rig.source()
    rig.write(1)
    (found,) = all_of(source)
    source.ack("nothing")
    source.fail("nothing")
    source.ack(found.id)
    source.ack(found.id)
    source.fail(found.id)
    rig.clock.pass_(100)
    assert all_of(source) == []
    assert source.idle()


# -- Redis becomes another server


def test_another_redis_means_the_last_commit_again(rig):
    source = rig.source()
    rig.write(12)
    a, b, c = all_of(source)
    source.ack(a.id)
    rig.settle(source)
    source.ack(b.id)
    rig.watch.run_id = "redis-2"
    again = all_of(source)
    assert offsets(again) == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert source.rewinds == 1
    source.ack(c.id)  # from before the rewind
    source.ack(again[0].id)
    rig.settle(source)
    assert rig.committed() == 8


def test_the_commit_itself_sees_another_redis(rig):
    """The watch may notice between `next` looking and `commit` looking."""
    source = rig.source()
    rig.write(1)
    source.ack(all_of(source)[0].id)
    rig.watch.run_id = "redis-2"
    rig.settle(source)
    assert rig.committed() is None


def test_redis_away_and_back_as_the_same_goes_on(rig):
    source = rig.source()
    rig.write(8)
    a, _b = all_of(source)
    rig.watch.run_id = None
    assert source.next(0.0) is None
    source.ack(a.id)
    rig.watch.run_id = "redis-1"
    assert source.next(0.0) is None
    assert source.rewinds == 0
    rig.settle(source)
    assert rig.committed() == 4


def test_redis_away_and_back_as_another_rewinds(rig):
    source = rig.source()
    rig.write(4)
    source.ack(all_of(source)[0].id)
    rig.watch.run_id = None
    assert source.next(0.0) is None
    rig.watch.run_id = "redis-2"
    assert offsets(all_of(source)) == [[0, 1, 2, 3]]


def test_a_rewind_survives_a_broker_that_is_away(rig):
    source = rig.source()
    rig.write(4)
    source.ack(all_of(source)[0].id)
    rig.watch.run_id = "redis-2"
    for call in ("committed", "bounds", "assign"):
        rig.log.fail_next(call, LogUnavailable("away"))
        assert source.next(0.0) is None
        rig.settle(source)
        assert rig.committed() is None
    assert offsets(all_of(source)) == [[0, 1, 2, 3]]


# -- failing


def test_a_failed_slice_comes_again_after_a_growing_wait_for_ever(rig):
    source = rig.source(limits=limits(poison_fails=10**6), jitter=1.0)
    rig.write(4)
    (found,) = all_of(source)
    waits = []
    for _ in range(50):
        source.fail(found.id)
        failed_at = rig.clock()
        while (again := source.next(0.0)) is None:
            rig.clock.pass_(0.25)
            assert rig.clock() - failed_at < 31
        waits.append(rig.clock() - failed_at)
        assert again.offsets == found.offsets
        assert again.id != found.id
        found = again
    assert waits[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert set(waits[6:]) == {30.0}
    rig.settle(source)
    assert rig.committed() is None
    source.ack(found.id)
    rig.settle(source)
    assert rig.committed() == 4


def test_jitter_at_most_halves_the_wait(rig):
    source = rig.source(jitter=0.0)
    rig.write(1)
    source.fail(all_of(source)[0].id)
    rig.clock.pass_(0.24)
    assert source.next(0.0) is None
    rig.clock.pass_(0.01)
    assert source.next(0.0) is not None


def work_off(rig, source, fails, rounds=400):
    """Ack all but those `fails` says; answers the acked offsets and the poison slices seen."""
    acked, poison = set(), []
    for _ in range(rounds):
        for found in all_of(source):
            if found.poison:
                poison.append(found)
                source.ack(found.id)
            elif fails(found):
                source.fail(found.id)
            else:
                source.ack(found.id)
                acked.update(found.offsets)
        if source.idle():
            break
        rig.clock.pass_(1.0)
    return acked, poison


@pytest.mark.parametrize("bad", [0, 1, 31, 32, 62, 63])
def test_the_one_poison_record_of_64_is_found(rig, bad):
    source = rig.source(limits=limits(slice_records=64))
    rig.write(64)
    slices = 0

    def fails(found):
        nonlocal slices
        slices += 1
        if slices % 5 == 0:
            rig.write(1)  # others get through meanwhile
        return bad in found.offsets

    acked, poison = work_off(rig, source, fails)
    assert [p.offsets for p in poison] == [[bad]]
    assert set(range(64)) - acked == {bad}
    rig.settle(source)
    assert rig.committed() >= 64


def test_pieces_keep_their_records_headers_and_timestamps(rig):
    source = rig.source(limits=limits(slice_records=8))
    for i in range(4):
        rig.wall_ms += 1
        rig.write(1, headers=(("n", b"%d" % i),))
    seen = []

    def fails(found):
        seen.append(found)
        return len(found.offsets) > 1

    work_off(rig, source, fails)
    parts = [s for s in seen if len(s.offsets) < 4]
    assert parts
    for part in parts:
        for i, offset in enumerate(part.offsets):
            assert part.values[i] == b"value-0"
            assert part.timestamps[i] == rig.wall_ms - 3 + offset
            assert part.headers[i] == (("n", b"%d" % offset),)


def test_nothing_is_dead_when_nothing_gets_through(rig):
    source = rig.source(limits=limits(slice_records=4))
    rig.write(8)
    acked, poison = work_off(rig, source, lambda _: True, rounds=200)
    assert (acked, poison) == (set(), [])
    acked, poison = work_off(rig, source, lambda _: False)
    assert acked == set(range(8)), "and all of it works once the cause is gone"
    assert poison == []


def test_a_record_that_fails_for_a_while_is_not_dead_when_it_stops(rig):
    source = rig.source(limits=limits(slice_records=1))
    rig.write(1)
    left = [2]

    def fails(_):
        left[0] -= 1
        return left[0] >= 0

    assert work_off(rig, source, fails) == ({0}, [])


def test_a_poison_record_that_cannot_be_diverted_stays_poison(rig):
    source = rig.source(limits=limits(slice_records=1, in_flight=10))
    rig.write(1)
    for _ in range(20):
        rig.write(1)  # one other each time
        done = False
        for found in all_of(source):
            if found.offsets == [0] and not found.poison:
                source.fail(found.id)
            elif found.poison:
                source.fail(found.id)
                done = True
            else:
                source.ack(found.id)
        if done:
            break
        rig.clock.pass_(1.0)
    assert done
    left = 5
    while left:
        rig.clock.pass_(31.0)
        for found in all_of(source):
            assert found.poison == ("poison" if found.offsets == [0] else "")
            (source.fail if found.poison else source.ack)(found.id)
            left -= bool(found.poison)
    rig.clock.pass_(31.0)
    _, poison = work_off(rig, source, lambda _: False)
    assert [p.offsets for p in poison] == [[0]]
    rig.settle(source)
    assert rig.committed() >= 2


# -- the broker


@pytest.mark.parametrize("call", ["topics", "committed", "bounds", "assign", "poll", "commit"])
def test_a_broker_that_is_away_never_raises_and_loses_nothing(rig, call):
    source = rig.source()
    rig.write(4)
    if call == "commit":
        source.ack(all_of(source)[0].id)
        rig.clock.pass_(6.0)
        rig.write(1)
    rig.log.fail_next(call, LogUnavailable("away"), times=3)
    for _ in range(4):
        rig.clock.pass_(1.1)
        found = source.next(0.0)
        if found is not None:
            break
    assert found is not None
    source.ack(found.id)
    rig.settle(source)
    assert rig.committed() == (5 if call == "commit" else 4)


def test_a_commit_whose_answer_was_lost_is_made_again(rig):
    source = rig.source()
    rig.write(4)
    source.ack(all_of(source)[0].id)
    rig.log.fail_next("commit", LogUnavailable("away"), times=1)
    rig.clock.pass_(6.0)
    assert source.next(0.0) is None
    assert rig.committed() is None
    rig.clock.pass_(0.6)
    source.next(0.0)
    assert rig.committed() == 4


def test_retention_that_was_faster_goes_on_at_the_earliest(rig):
    source = rig.source(limits=limits(in_flight=1))
    rig.write(4)
    (first,) = all_of(source)
    rig.write(12)
    rig.admin.delete_records({TopicPartition(TOPIC, 0): 10})
    source.ack(first.id)
    source.next(0.0)
    seen = []
    while (found := source.next(0.0)) is not None:
        seen += found.offsets
        source.ack(found.id)
    assert seen == list(range(10, 16))
    rig.settle(source)
    assert rig.committed() == 16


def test_what_was_read_before_retention_passed_is_still_seen_through(rig):
    """Slices on their way and records waiting to be cut are in memory: no reason to lose them."""
    source = rig.source(limits=limits(wait_s=1.0, poison_fails=2))
    rig.write(5)
    (flying,) = all_of(source)
    assert flying.offsets == [0, 1, 2, 3]
    rig.write(8)
    rig.log.fail_next("poll", OffsetOutOfRange(TOPIC, 0, 5, 9))
    assert source.next(0.0) is None
    source.fail(flying.id)
    rig.clock.pass_(1.0)
    seen = []
    for round_ in range(40):
        for found in all_of(source):
            if found.offsets[0] < 4 and round_ < 4:
                source.fail(found.id)
            else:
                source.ack(found.id)
                seen += found.offsets
        rig.clock.pass_(2.0)
    assert sorted(seen) == [0, 1, 2, 3, 4, *range(9, 13)]
    rig.settle(source)
    assert rig.committed() == 13


def test_partitions_added_are_noticed_and_nothing_is_lost(tmp_path):
    rig = Rig(tmp_path, partitions=1)
    source = rig.source(limits=limits(in_flight=20))
    rig.write(4)
    all_of(source)  # on their way, not acked
    rig.admin.add_partitions(TOPIC, 3)
    rig.write(2, partition=2)
    rig.clock.pass_(11.0)
    found = all_of(source)
    assert sorted((s.place.partition, *s.offsets) for s in found) == [(0, 0, 1, 2, 3), (2, 0, 1)]
    for s in found:
        source.ack(s.id)
    rig.settle(source)
    assert [rig.committed(p) for p in range(3)] == [4, None, 2]


@pytest.mark.parametrize("broken", ["", "committed", "bounds", "assign"])
def test_a_topic_made_anew_is_read_from_its_start(rig, broken):
    source = rig.source()
    rig.write(4)
    (old,) = all_of(source)
    rig.admin.delete_topics([TOPIC])
    rig.admin.create_topics({TOPIC: 1})
    rig.write(2)
    rig.clock.pass_(11.0)
    if broken:
        rig.log.fail_next(broken, LogUnavailable("away"))
    for _ in range(5):
        found = source.next(0.0)
        rig.clock.pass_(3.0)
        if found is not None:
            break
    assert found is not None
    assert found.offsets == [0, 1]
    assert found.place.topic_id == rig.admin.topics()[TOPIC].id != old.place.topic_id
    source.ack(old.id)
    rig.settle(source)
    assert rig.committed() is None


def test_a_topic_that_is_not_there_yet(tmp_path):
    rig = Rig(tmp_path, topic="other")
    rig.topic = TOPIC
    source = rig.source()
    assert source.next(0.0) is None
    rig.admin.create_topics({TOPIC: 1})
    rig.write(1)
    rig.clock.pass_(1.1)
    assert offsets(all_of(source)) == [[0]]


# -- records that are not due


def due(headers):
    return int(dict(headers).get("due", b"0"))


def at(ms):
    return (("due", b"%d" % ms),)


def test_a_partition_waits_for_its_head_while_others_go_on(tmp_path):
    rig = Rig(tmp_path, partitions=2)
    source = rig.source(due=due, limits=limits(in_flight=10))
    rig.write(2, headers=at(rig.wall_ms + 1000))
    rig.write(1, partition=1, headers=at(rig.wall_ms))
    found = all_of(source)
    assert [s.place.partition for s in found] == [1]
    assert rig.log.calls["pause"] == 1
    for _ in range(3):
        assert source.next(0.0) is None
    assert rig.log.calls["pause"] == 1, "once"
    rig.wall_ms += 999
    assert source.next(0.0) is None
    rig.wall_ms += 1
    assert offsets(all_of(source)) == [[0, 1]]
    assert rig.log.calls["resume"] == 1
    rig.write(1, headers=at(0))
    assert offsets(all_of(source)) == [[2]], "the partition is read on"


def test_nobody_waits_longer_than_the_longest_honest_wait(rig):
    source = rig.source(due=due, longest_ms=lambda topic: {TOPIC: 10_000}[topic])
    rig.write(1, headers=at(rig.wall_ms + 10**12))
    rig.write(1, headers=at(rig.wall_ms + 12_000))
    assert source.next(0.0) is None
    rig.write(1, headers=at(rig.wall_ms + 12_000))
    rig.wall_ms += 9_999
    assert source.next(0.0) is None
    rig.wall_ms += 1
    # A clock that was wrong when they were written was wrong for all of them, and they have waited together.
    assert offsets(all_of(source)) == [[0, 1]]
    assert source.let_go == 2
    rig.wall_ms += 1_999
    assert source.next(0.0) is None, "what came later waits its own time"
    rig.wall_ms += 1
    assert offsets(all_of(source)) == [[2]]
    assert source.let_go == 2


def test_only_the_leading_due_records_are_cut(rig):
    source = rig.source(due=due)
    start = rig.wall_ms
    for wait in (0, 0, 500, 0):
        rig.write(1, headers=at(start + wait))
    assert offsets(all_of(source)) == [[0, 1]]
    rig.wall_ms += 500
    assert offsets(all_of(source)) == [[2, 3]]


def test_a_rewind_forgets_the_pause(rig):
    source = rig.source(due=due)
    rig.write(1, headers=at(rig.wall_ms + 1000))
    assert source.next(0.0) is None
    rig.watch.run_id = "redis-2"
    assert source.next(0.0) is None
    rig.wall_ms += 1000
    assert offsets(all_of(source)) == [[0]]
    rig.write(1)
    assert offsets(all_of(source)) == [[1]]


def test_names_of_the_retry_topics():
    assert retry_names("p.") == ["p.retry.1s", "p.retry.10s", "p.retry.1m", "p.retry.10m"]
