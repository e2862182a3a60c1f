"""Topology `redrive`: failed events, each tried again when it is due, far from the fresh path."""

import parallelism as par
from streamparse import Grouping, Topology

from bolts.divert import DivertBolt
from bolts.retry import RetryBolt
from clicktide.slices import FAILED
from spouts.slices import RetrySpout

NEAR = Grouping.LOCAL_OR_SHUFFLE


class RedriveTopology(Topology):
    """retry spout -> retry -> divert."""

    config = {"topology.message.timeout.secs": 60}

    retry_spout = RetrySpout.spec(name="retry_spout", par=par.RETRY_SPOUT, config=par.tasks())
    retry = RetryBolt.spec(name="retry", inputs={retry_spout: NEAR}, par=par.RETRY, config=par.tasks())
    divert = DivertBolt.spec(
        name="divert",
        inputs={retry_spout[FAILED]: NEAR, retry[FAILED]: NEAR},
        par=par.DIVERT,
        config=par.tasks(),
    )
