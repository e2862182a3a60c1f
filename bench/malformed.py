"""Records that are no events: one function a way to be wrong, each of them refused by design.

Every record carries `token`, which is unique in a run, so that a dead letter can be told from all others by its
bytes, and so that one that is taken for an event shows up as an extra row.
"""

from __future__ import annotations

from collections.abc import Callable

_MAX_EVENT = 32 * 1024


def _event(token: bytes, user: bytes, at: int, *, type_: bytes = b'"click"', more: bytes = b"") -> bytes:
    return b'{"event_id":"%b","type":%b,"user_id":"%b","occurred_at":%d%b}' % (token, type_, user, at, more)


def broken_json(token: bytes, user: bytes, at: int) -> bytes:
    return _event(token, user, at)[:-7]


def not_an_object(token: bytes, user: bytes, at: int) -> bytes:  # noqa: ARG001 - all have one signature
    return b'"%b"' % token


def plain_text(token: bytes, user: bytes, at: int) -> bytes:
    return b"GET /%b?user=%b&at=%d HTTP/1.1" % (token, user, at)


def unknown_type(token: bytes, user: bytes, at: int) -> bytes:
    return _event(token, user, at, type_=b'"steal"')


def wrong_type_of_type(token: bytes, user: bytes, at: int) -> bytes:
    return _event(token, user, at, type_=b"7")


def user_is_a_list(token: bytes, user: bytes, at: int) -> bytes:
    return b'{"event_id":"%b","type":"click","user_id":["%b"],"occurred_at":%d}' % (token, user, at)


def user_missing(token: bytes, user: bytes, at: int) -> bytes:  # noqa: ARG001
    return b'{"event_id":"%b","type":"click","occurred_at":%d}' % (token, at)


def time_missing(token: bytes, user: bytes, at: int) -> bytes:  # noqa: ARG001
    return b'{"event_id":"%b","type":"click","user_id":"%b"}' % (token, user)


def time_is_no_time(token: bytes, user: bytes, at: int) -> bytes:  # noqa: ARG001
    return b'{"event_id":"%b","type":"click","user_id":"%b","occurred_at":"yesterday"}' % (token, user)


def far_future(token: bytes, user: bytes, at: int) -> bytes:
    return _event(token, user, at + 30 * 86_400_000)


def order_without_id(token: bytes, user: bytes, at: int) -> bytes:
    return _event(token, user, at, type_=b'"pay"', more=b',"amount":100')


def amount_is_text(token: bytes, user: bytes, at: int) -> bytes:
    return _event(token, user, at, type_=b'"pay"', more=b',"order_id":"o","amount":"a lot"')


def amount_negative(token: bytes, user: bytes, at: int) -> bytes:
    return _event(token, user, at, type_=b'"pay"', more=b',"order_id":"o","amount":-1')


def quantity_zero(token: bytes, user: bytes, at: int) -> bytes:
    return _event(token, user, at, more=b',"quantity":0')


def not_utf8(token: bytes, user: bytes, at: int) -> bytes:
    return _event(token, user, at, more=b',"province":"\xff\xfe\xb9\xe3"')


def oversize(token: bytes, user: bytes, at: int) -> bytes:
    return _event(token, user, at, more=b',"page":"' + b"x" * _MAX_EVENT + b'"')


KINDS: tuple[Callable[[bytes, bytes, int], bytes], ...] = (
    broken_json,
    not_an_object,
    plain_text,
    unknown_type,
    wrong_type_of_type,
    user_is_a_list,
    user_missing,
    time_missing,
    time_is_no_time,
    far_future,
    order_without_id,
    amount_is_text,
    amount_negative,
    quantity_zero,
    not_utf8,
    oversize,
)
