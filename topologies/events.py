"""Topology `events`: the fresh path, from the topic `events` to both stores; failures leave it by the divert bolt."""

from pathlib import Path

import parallelism as par
from streamparse import Grouping, Topology

from bolts.aggregate import AggregateBolt
from bolts.divert import DivertBolt
from bolts.parse import ParseBolt
from bolts.persist import PersistBolt
from clicktide.retry import policy_file
from clicktide.slices import FAILED
from spouts.slices import KafkaSpout

POLICY = Path(__file__).resolve().parent.parent / "retry" / "policy.toml"
# Evenly over all tasks: after a rebalance a worker may have fewer of the next bolt's than another.
EVENLY = Grouping.SHUFFLE
NEAR = Grouping.LOCAL_OR_SHUFFLE


class EventsTopology(Topology):
    """spout -> parse -> aggregate (claims and effects in Redis) -> persist; all of them -> divert."""

    config = {**par.TOPOLOGY, **policy_file.options(POLICY)}

    spout = KafkaSpout.spec(name="spout", par=par.SPOUT, config=par.settings(par.SPOUT, grows=False))
    parse = ParseBolt.spec(
        name="parse", inputs={spout: EVENLY}, par=par.PARSE, config=par.settings(par.PARSE)
    )
    aggregate = AggregateBolt.spec(
        name="aggregate", inputs={parse: EVENLY}, par=par.AGGREGATE, config=par.settings(par.AGGREGATE)
    )
    persist = PersistBolt.spec(
        name="persist", inputs={aggregate: EVENLY}, par=par.PERSIST, config=par.settings(par.PERSIST)
    )
    divert = DivertBolt.spec(
        name="divert",
        inputs={
            spout[FAILED]: NEAR,
            parse[FAILED]: NEAR,
            aggregate[FAILED]: NEAR,
            persist[FAILED]: NEAR,
        },
        par=par.DIVERT,
        config=par.settings(par.DIVERT, grows=False),
    )
