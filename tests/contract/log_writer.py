"""A process that writes to the embedded log and says which records were acknowledged: run as a script, to be killed.

Arguments: the log's file, the topic, the writer's name, how many records a call. Prints one line a call, once it was
answered: the name, the first number, the count.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from clicktide.log.embedded import EmbeddedLog
from clicktide.log.port import Outgoing


def main(path: str, topic: str, name: str, size: int) -> None:
    producer = EmbeddedLog(Path(path), 1 << 30).producer()
    for first in itertools.count(step=size):
        records = [
            Outgoing(topic, None, b"%s:%d:" % (name.encode(), i) + b"x" * (i % 300), partition=i % 2)
            for i in range(first, first + size)
        ]
        producer.send(records, 20)
        print(name, first, size, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
