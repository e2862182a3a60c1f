"""Shapes of the query service's answers, as the OpenAPI document shows them. Times are ms since the epoch (UTC), amounts
minor units."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

AsOf = Annotated[
    int | None,
    Meta(
        description="Everything uploaded before this time (ms) is in the answer, what comes later may be; null while "
        "that is not known."
    ),
]
ReadAt = Annotated[int, Meta(description="When it was read (ms).")]
Degraded = Annotated[
    list[str],
    Meta(description="Stores and breakers that are away now, as in `redis`, `mysql.1`, `log`; [] in health."),
]


class Metrics(msgspec.Struct):
    """`from` and `to` are null where the totals are of all that is kept."""

    as_of: AsOf
    degraded: Degraded
    from_: Annotated[int | None, Meta(description="Start of what the totals cover (ms), inclusive.")] = (
        msgspec.field(name="from")
    )
    to: Annotated[int | None, Meta(description="End of what the totals cover (ms), exclusive.")]
    totals: dict[str, int]
    series: Annotated[
        list[dict[str, int]], Meta(description="`at` is the start (ms) of the time that the point covers.")
    ]
    step_ms: Annotated[int, Meta(description="What a point covers (ms); with `slide`, the window.")]
    approximate: Annotated[list[str], Meta(description="Totals that are estimates (within about 1 %).")] = []
    omitted: Annotated[int | None, Meta(description="Names left out of the totals by `limit`.")] = None


class Timeline(msgspec.Struct):
    as_of: AsOf
    degraded: Degraded
    events: Annotated[list[dict[str, Any]], Meta(description="Newest first; the event's fields.")]
    next: Annotated[str | None, Meta(description="`cursor` of the following page; null at the end.")]


class FunnelStep(msgspec.Struct):
    step: Literal["view", "click", "cart", "order", "pay"]
    events: int
    of_first: Annotated[float | None, Meta(description="Events for each view; null where there is none.")]
    of_previous: Annotated[
        float | None, Meta(description="Events for each one of the step before; null where there is none.")
    ]


class Funnel(Metrics):
    """Of events, not of users or sessions: whoever views ten items and buys one counts as ten and one."""

    steps: list[FunnelStep] = []


class CategoryEvents(msgspec.Struct):
    category_id: str
    events: int


class BrandEvents(msgspec.Struct):
    brand_id: str
    events: int


class Profile(msgspec.Struct):
    as_of: AsOf
    degraded: Degraded
    approximate: Annotated[
        bool,
        Meta(description="Only what Redis holds, or late events of the last half minute may be missing."),
    ]
    user_id: str
    events: int
    counts: Annotated[dict[str, int], Meta(description="Events by type.")]
    spend: Annotated[int, Meta(description="Sum of the pays.")]
    refunds: Annotated[int, Meta(description="Sum of the refunds.")]
    categories: Annotated[list[CategoryEvents], Meta(description="The ten with most events.")]
    brands: Annotated[list[BrandEvents], Meta(description="The ten with most events.")]
    first_seen: Annotated[int, Meta(description="When the first event happened (ms).")]
    last_seen: Annotated[int, Meta(description="When the last event happened (ms).")]
    province: Annotated[str | None, Meta(description="As the newest event says that has one.")]
    gender: Annotated[Literal["female", "male", "unknown"], Meta(description="Likewise.")]
    age_range: Annotated[str | None, Meta(description="Likewise.")]


class Session(msgspec.Struct, rename={"from_": "from"}):
    session_id: Annotated[str | None, Meta(description="null where the events carry none.")]
    from_: Annotated[int, Meta(description="When its first event happened (ms).")]
    to: Annotated[int, Meta(description="When its last event happened (ms).")]
    events: int
    counts: Annotated[dict[str, int], Meta(description="Events by type, those that are there.")]
    items: Annotated[int, Meta(description="Different items.")]
    spend: Annotated[int, Meta(description="Sum of the pays.")]
    complete: Annotated[bool, Meta(description="false where it is so long that its beginning was not read.")]


class Sessions(msgspec.Struct):
    as_of: AsOf
    degraded: Degraded
    sessions: Annotated[list[Session], Meta(description="The one with the newest event first.")]
    next: Annotated[str | None, Meta(description="`cursor` of the following page; null at the end.")]


class Purchase(msgspec.Struct):
    at: Annotated[int, Meta(description="When it happened (ms).")]
    event_id: str
    type: Literal["order", "pay", "refund"]
    order_id: str | None
    item_id: str | None
    category_id: str | None
    merchant_id: str | None
    brand_id: str | None
    amount: int | None
    quantity: int | None


class Purchases(msgspec.Struct):
    as_of: AsOf
    degraded: Degraded
    purchases: Annotated[list[Purchase], Meta(description="Newest first.")]
    next: Annotated[str | None, Meta(description="`cursor` of the following page; null at the end.")]


class Step(msgspec.Struct):
    at: int
    event_id: str
    amount: int | None


class OrderAnswer(msgspec.Struct):
    as_of: AsOf
    degraded: Degraded
    order_id: str
    user_id: str | None
    state: Literal["ordered", "paid", "refunded"]
    history: Annotated[dict[str, Step], Meta(description="Each step that is known, by its name.")]


class Retrying(msgspec.Struct):
    tier: str
    stage: str
    attempt: int
    due: Annotated[int, Meta(description="Not tried again before (ms).")]
    code: str
    error: str


class Dead(msgspec.Struct):
    stage: str
    code: str
    error: str
    attempt: int


class Where(msgspec.Struct):
    """Where an event is. `waiting`: on the log, not yet processed."""

    as_of: AsOf
    degraded: Degraded
    event_id: str
    state: Literal["stored", "waiting", "retrying", "dead"]
    event: dict[str, Any] | None = None
    retrying: Retrying | None = None
    dead: Dead | None = None


class PartitionLag(msgspec.Struct):
    partition: int
    position: Annotated[int, Meta(description="Next offset to be processed.")]
    end: Annotated[int, Meta(description="Next offset to be written.")]
    records: int
    seconds: Annotated[float, Meta(description="Age of the oldest record that waits.")]


class Lag(msgspec.Struct):
    records: int
    seconds: float
    partitions: list[PartitionLag]


class Waiting(msgspec.Struct):
    records: int
    oldest_due: Annotated[int | None, Meta(description="When the first of them is due (ms).")]


class Status(msgspec.Struct):
    as_of: ReadAt
    degraded: Degraded
    state: Literal["up", "degraded"]
    lag: Annotated[Lag | None, Meta(description="null while the broker is away, or has no such topic.")]
    retry: Annotated[dict[str, Waiting] | None, Meta(description="By tier.")]
    dead: Annotated[int | None, Meta(description="Dead letters that are kept.")]
    late: Annotated[int | None, Meta(description="Events stored but too old to count.")]
    rate: Annotated[
        float | None, Meta(description="Events a second over the last ten seconds, by event time.")
    ]
    breakers: Annotated[
        dict[str, str], Meta(description="Breakers that are not closed, by component and store.")
    ]
    alarms: Annotated[
        dict[str, Any],
        Meta(
            description="What needs a person, by component: `dead.<stage>` is a stage that sends no dead letters just now."
        ),
    ]
    stores: dict[str, Literal["up", "away", "unknown"]]
