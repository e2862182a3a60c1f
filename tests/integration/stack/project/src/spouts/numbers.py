"""Emits 0 to counting.total - 1, counting.rate of them a second, and repeats what failed; then keeps quiet."""

import time
from collections import deque

from streamparse import Spout


class NumberSpout(Spout):
    outputs = ["number"]  # noqa: RUF012 - as streamparse reads it

    def initialize(self, conf, ctx):
        self.waiting = deque(range(int(conf.get("counting.total", 1000))))
        self.rate = float(conf.get("counting.rate", 500))
        self.began = time.monotonic()
        self.emitted = 0

    def next_tuple(self):
        if self.waiting and self.emitted < (time.monotonic() - self.began) * self.rate:
            number = self.waiting.popleft()
            self.emitted += 1
            self.emit([number], tup_id=str(number))

    def ack(self, tup_id):
        pass

    def fail(self, tup_id):
        self.waiting.append(int(tup_id))
