"""When a spout is asked for more."""

from localstorm.spouting import AHEAD_MOST, IDLE_FIRST, IDLE_MOST, SpoutState


def active(max_pending=0):
    state = SpoutState(max_pending)
    state.active = True
    return state


def answer(state, now, *, emitted):
    state.emitted = emitted
    assert state.synced(now) == "next"


def test_an_inactive_spout_is_not_asked():
    assert SpoutState().asks(0) == 0


def test_an_idle_spout_is_asked_ever_less_often_up_to_a_limit():
    state, now, pauses = active(), 100.0, []
    for _ in range(8):
        assert state.asks(now) >= 1
        state.sent("next", now)
        answer(state, now, emitted=False)
        assert state.asks(now) == 0
        pauses.append(round(state.idle_until - now, 6))
        now = state.idle_until
    assert pauses == [IDLE_FIRST, 0.002, 0.004, 0.008, IDLE_MOST, IDLE_MOST, IDLE_MOST, IDLE_MOST]


def test_it_is_asked_at_once_while_it_emits_and_after_a_fail():
    state = active()
    state.sent("next", 0)
    answer(state, 0, emitted=False)
    state.sent("fail", 0)
    assert state.synced(0) == "fail"
    assert state.asks(0) == 1
    state.sent("next", 0)
    answer(state, 0.001, emitted=True)
    assert state.asks(0.001) >= 1


def test_pending_and_asked_together_keep_the_limit():
    state = active(max_pending=3)
    state.pending = 1
    state.service = 0.0
    assert state.asks(0) == 2
    state.sent("next", 0)
    assert state.asks(0) == 1
    state.pending = 3
    assert state.asks(0) == 0


def test_a_fast_spout_is_asked_ahead_and_a_slow_one_is_not():
    fast, slow = active(), active()
    for n in range(100):
        for state, service in ((fast, 0.00005), (slow, 0.05)):
            state.sent("next", n)
            answer(state, n + service, emitted=True)
    assert fast.asks(200) == AHEAD_MOST
    assert slow.asks(200) == 1


def test_an_answer_to_nothing_is_ignored():
    assert active().synced(1) is None
