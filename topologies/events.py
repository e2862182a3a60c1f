"""Topology `events`: the fresh path, from the topic `events` to both stores; failures leave it by the divert bolt."""

import parallelism as par
from streamparse import Grouping, Topology

from bolts.aggregate import AggregateBolt
from bolts.divert import DivertBolt
from bolts.parse import ParseBolt
from bolts.persist import PersistBolt
from clicktide.slices import FAILED
from spouts.slices import KafkaSpout

NEAR = Grouping.LOCAL_OR_SHUFFLE


class EventsTopology(Topology):
    """spout -> parse -> aggregate (claims and effects in Redis) -> persist; all of them -> divert."""

    config = {"topology.message.timeout.secs": 60}

    spout = KafkaSpout.spec(name="spout", par=par.SPOUT, config=par.tasks())
    parse = ParseBolt.spec(name="parse", inputs={spout: NEAR}, par=par.PARSE, config=par.tasks())
    aggregate = AggregateBolt.spec(
        name="aggregate", inputs={parse: NEAR}, par=par.AGGREGATE, config=par.tasks()
    )
    persist = PersistBolt.spec(name="persist", inputs={aggregate: NEAR}, par=par.PERSIST, config=par.tasks())
    divert = DivertBolt.spec(
        name="divert",
        inputs={
            spout[FAILED]: NEAR,
            parse[FAILED]: NEAR,
            aggregate[FAILED]: NEAR,
            persist[FAILED]: NEAR,
        },
        par=par.DIVERT,
        config=par.tasks(),
    )
