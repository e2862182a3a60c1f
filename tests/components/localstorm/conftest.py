"""A small streamparse project, made anew for each test; a test adds its topology."""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

SPOUTS = '''
from streamparse import ReliableSpout, Spout, Stream


class Numbers(Spout):
    """Emits 0..limit-1 by id; again what fails."""

    outputs = ["n"]

    def initialize(self, conf, context):
        self.left = list(range(conf.get("limit", 10)))[::-1]

    def next_tuple(self):
        if self.left:
            n = self.left.pop()
            self.emit([n], tup_id=n)

    def fail(self, n):
        self.left.append(n)


class Kinds(Spout):
    """Emits on two streams; asks for task ids."""

    outputs = [Stream(fields=["n", "who"], name="even"), Stream(fields=["n"], name="odd")]

    def initialize(self, conf, context):
        self.left = list(range(10))

    def next_tuple(self):
        if self.left:
            n = self.left.pop(0)
            values = [n] if n % 2 else [n, "x"]
            tasks = self.emit(values, stream="odd" if n % 2 else "even", tup_id=str(n), need_task_ids=True)
            self.logger.warning("tasks %s", tasks)


class Directed(Spout):
    """Sends each number to the task it names."""

    outputs = [Stream(fields=["n"], direct=True)]

    def initialize(self, conf, context):
        names = context["task->component"]
        self.targets = sorted(int(task) for task, name in names.items() if name == "echo")
        self.left = list(range(9))

    def next_tuple(self):
        if self.left:
            n = self.left.pop(0)
            self.emit([n], tup_id=n, direct_task=self.targets[n % 3])


class Lifecycle(Spout):
    """Says when it is activated and deactivated."""

    outputs = ["n"]

    def next_tuple(self):
        pass

    def activate(self):
        self.logger.warning("activated")

    def deactivate(self):
        self.logger.warning("deactivated")


class Flood(Spout):
    """Emits large tuples as fast as it is asked, for a while."""

    outputs = ["n", "blob"]

    def initialize(self, conf, context):
        self.n = 0
        self.limit = conf.get("limit", 300)

    def next_tuple(self):
        for _ in range(10):
            if self.n < self.limit:
                self.n += 1
                self.emit([self.n, "x" * 100_000], tup_id=self.n)


class Undeclared(Spout):
    outputs = ["n"]

    def next_tuple(self):
        self.emit([1], stream="elsewhere")
'''

BOLTS = '''
import os
import signal
import sys
import time

from streamparse import BatchingBolt, Bolt, Stream


class Echo(Bolt):
    """Emits what it got, with its task."""

    outputs = ["n", "task"]

    def process(self, tup):
        self.emit([tup.values[0], self.task_id])


class Fan(Bolt):
    """Three for one."""

    outputs = ["n", "task"]

    def process(self, tup):
        for part in range(3):
            self.emit([tup.values[0] * 3 + part, part])


class Raises(Bolt):
    """Raises at 3, the first time only (marks it in a file)."""

    outputs = ["n"]

    def process(self, tup):
        mark = self.storm_conf["mark"]
        if tup.values.n == 3 and not os.path.exists(mark):
            open(mark, "w").close()
            raise ValueError("three is too many")
        self.emit([tup.values.n])


class RaisesOn(Raises):
    exit_on_exception = False
    auto_ack = False

    def process(self, tup):
        super().process(tup)
        self.ack(tup)


class AlwaysDies(Bolt):
    outputs = ["n"]

    def initialize(self, conf, context):
        print("cannot start", file=sys.stderr)
        sys.exit(7)


class Batches(BatchingBolt):
    outputs = ["size"]
    ticks_between_batches = 1

    def process_batch(self, key, tups):
        self.emit([len(tups)])


class Ticked(Bolt):
    outputs = ["tick"]

    def process(self, tup):
        pass

    def process_tick(self, tup):
        self.emit([list(tup.values)])


class Silent(Bolt):
    """Stops at 3, the first time only."""

    outputs = ["n"]

    def process(self, tup):
        mark = self.storm_conf["mark"]
        if tup.values.n == 3 and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGSTOP)


class Slow(Bolt):
    outputs = ["n"]

    def process(self, tup):
        time.sleep(self.storm_conf.get("nap", 0.01))


class Multiplies(Bolt):
    """A thousand for one."""

    outputs = ["n", "blob"]

    def process(self, tup):
        for n in range(1000):
            self.emit([n, "x" * 5000])


class Rounds(Bolt):
    """Sends each tuple round and round."""

    outputs = ["n", "left", "blob"]

    def process(self, tup):
        left = tup.values[1] if len(tup.values) == 3 else 20
        if left:
            for _ in range(2 if left > 15 else 1):
                self.emit([tup.values[0], left - 1, "x" * 20000])


class Twice(Bolt):
    """Fails and then acks the same tuple."""

    outputs = ["n"]

    def process(self, tup):
        if tup.values.n == 2 and not os.path.exists(self.storm_conf["mark"]):
            open(self.storm_conf["mark"], "w").close()
            self.fail(tup)


class Context(Bolt):
    """Emits what it was told when it started."""

    outputs = ["conf", "context"]

    def process(self, tup):
        self.emit([self.storm_conf, self.context])


class Sibling(Bolt):
    """Starts a process that would outlive it."""

    outputs = ["pid"]

    def initialize(self, conf, context):
        import subprocess

        self.sibling = subprocess.Popen(["sleep", "300"]).pid

    def process(self, tup):
        self.emit([self.sibling])
'''

HEAD = """
from streamparse.thrift import GlobalStreamId
from streamparse import Grouping, JavaBolt, ShellBolt, Topology
from bolts.zoo import *
from spouts.zoo import *


class Zoo(Topology):
"""


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[[str], Path]:
    """`make_project(body)`: a project whose one topology `zoo` has this class body."""

    def make(body: str, *, head: str = HEAD, **config: object) -> Path:
        project = tmp_path / "project"
        for package, source in (("spouts", SPOUTS), ("bolts", BOLTS)):
            folder = project / "src" / package
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "__init__.py").touch()
            (folder / "zoo.py").write_text(source)
        (project / "topologies").mkdir(exist_ok=True)
        text = head + textwrap.indent(textwrap.dedent(body), "    ")
        (project / "topologies" / "zoo.py").write_text(text)
        whole = {"topology_specs": "topologies/", "envs": {"here": {}}, **config}
        (project / "config.json").write_text(json.dumps(whole))
        return project

    return make
