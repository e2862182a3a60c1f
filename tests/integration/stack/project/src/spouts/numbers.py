"""Emits 0 to counting.total - 1 and repeats what failed; keeps quiet afterwards."""

from collections import deque

from streamparse import Spout


class NumberSpout(Spout):
    outputs = ["number"]  # noqa: RUF012 - as streamparse reads it

    def initialize(self, conf, ctx):
        self.waiting = deque(range(int(conf.get("counting.total", 1000))))

    def next_tuple(self):
        if self.waiting:
            number = self.waiting.popleft()
            self.emit([number], tup_id=str(number))

    def ack(self, tup_id):
        pass

    def fail(self, tup_id):
        self.waiting.append(int(tup_id))
