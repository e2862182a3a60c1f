"""Numbers go in, each is written down once it is counted: what was lost shows."""

from bolts.counting import CountingBolt
from spouts.numbers import NumberSpout
from streamparse import Grouping, Topology


class Counting(Topology):
    numbers = NumberSpout.spec()
    count = CountingBolt.spec(inputs={numbers: Grouping.SHUFFLE}, par=2, config={"topology.tasks": 4})
