"""Topology `redrive`: failed events, each tried again when it is due, far from the fresh path."""

from pathlib import Path

import parallelism as par
from streamparse import Grouping, Topology

from bolts.divert import DivertBolt
from bolts.retry import RetryBolt
from clicktide.retry import policy_file
from clicktide.slices import FAILED
from spouts.slices import RetrySpout

POLICY = Path(__file__).resolve().parent.parent / "retry" / "policy.toml"
EVENLY = Grouping.SHUFFLE
NEAR = Grouping.LOCAL_OR_SHUFFLE


class RedriveTopology(Topology):
    """retry spout -> retry -> divert."""

    config = {**par.TOPOLOGY, **par.UNHURRIED, **policy_file.options(POLICY)}

    retry_spout = RetrySpout.spec(
        name="retry_spout", par=par.RETRY_SPOUT, config=par.settings(par.RETRY_SPOUT, grows=False)
    )
    retry = RetryBolt.spec(
        name="retry", inputs={retry_spout: EVENLY}, par=par.RETRY, config=par.settings(par.RETRY)
    )
    divert = DivertBolt.spec(
        name="divert",
        inputs={retry_spout[FAILED]: NEAR, retry[FAILED]: NEAR},
        par=par.DIVERT,
        config=par.settings(par.DIVERT, grows=False),
    )
