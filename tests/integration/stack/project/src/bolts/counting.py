"""Writes each number that it gets into a file of its own under counting.folder."""

import os
from pathlib import Path

from streamparse import Bolt


class CountingBolt(Bolt):
    def initialize(self, conf, ctx):
        folder = Path(conf["counting.folder"])
        folder.mkdir(parents=True, exist_ok=True)
        self.file = (folder / f"{self.component_name}-{self.task_id}-{os.getpid()}.txt").open("a")

    def process(self, tup):
        self.file.write(f"{tup.values[0]}\n")
        self.file.flush()
