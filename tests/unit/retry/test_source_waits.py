"""A slice that fails because a stage is stopped is not to blame: it is neither halved nor taken for poison."""

from __future__ import annotations

import pytest
from unit.core.rig import Rig, all_of

from clicktide.seen import Seen


def fail_often(rig, source, times=30):
    """The slices seen while the second record's slice fails again and again, others being acked."""
    seen = []
    for _ in range(times):
        for s in all_of(source):
            seen.append(s)
            (source.fail if 1 in s.offsets else source.ack)(s.id)
        rig.write(4)
        rig.clock.pass_(60.0)
    return seen


@pytest.mark.parametrize("said", ["stopped", "nothing, Redis is away", "all is well"])
def test_what_waits_is_not_condemned(tmp_path, said):
    rig = Rig(tmp_path)
    rig.write(4)
    source = rig.source()
    source.next(0.0)
    source.fail("boot1-1")
    run_id = None if said.startswith("nothing") else "redis-1"
    rig.watch.seen = lambda: Seen(run_id, rig.clock(), stopped=said == "stopped")
    rig.clock.pass_(60.0)
    found = fail_often(rig, source)
    condemned = any(s.poison for s in found)
    halved = any(1 in s.offsets and len(s.offsets) < 4 for s in found)
    assert (condemned, halved) == ((True, True) if said == "all is well" else (False, False))
