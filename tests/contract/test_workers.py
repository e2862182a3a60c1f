"""A worker's view: src/ copied to a bare folder, run by the real `streamparse_run`, spoken to over its pipes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from unit.core.making import DIGEST, NOW, TOPIC_ID, raw

from clicktide import topics
from clicktide.log import open_log
from clicktide.log.port import Outgoing
from clicktide.packing import pack, unpack
from clicktide.row import EVENT_ID
from clicktide.settings import Settings
from clicktide.slices import Place, Records, Rows
from clicktide.sql import migrate

pytestmark = pytest.mark.embedded

SRC = Path(__file__).resolve().parent.parent.parent / "src"
RUN = Path(sys.executable).parent / "streamparse_run"
WAIT_S = 60.0


class Worker:
    """One component's process, in a folder that holds nothing but a copy of src/."""

    def __init__(self, script: str, folder: Path, conf: dict) -> None:
        self.folder = folder
        resources = folder / "resources"
        shutil.copytree(SRC, resources, ignore=shutil.ignore_patterns("__pycache__"))
        bare = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        self.errors = (folder / "stderr").open("wb")
        self.process = subprocess.Popen(
            [str(RUN), script],
            cwd=resources,
            env=bare,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        self.alarm = threading.Timer(WAIT_S, self.process.kill)
        self.alarm.start()
        context = {"taskid": 1, "componentid": "it", "task->component": {"1": "it"}}
        self.tell({"conf": {"topology.name": "t", **conf}, "pidDir": str(folder), "context": context})

    def tell(self, message: dict) -> None:
        self.process.stdin.write(json.dumps(message).encode() + b"\nend\n")
        self.process.stdin.flush()

    def line(self) -> bytes:
        found = self.process.stdout.readline()
        assert found, f"it ended: {(self.folder / 'stderr').read_text('utf-8', 'replace')[-3000:]}"
        return found

    def hears(self, *commands: str) -> dict:
        """The next message that is one of these commands; log lines are passed over."""
        while True:
            message = json.loads(self.line())
            assert self.line() == b"end\n"
            if message.get("command") in commands:
                return message
            assert message.get("command") == "log", message

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.alarm.cancel()
        for stream in (self.process.stdin, self.process.stdout):
            stream.close()
        try:
            self.process.wait(10)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(10)
            self.errors.close()


def test_a_bolt(tmp_path):
    with Worker("bolts.parse.ParseBolt", tmp_path, {}) as worker:
        first = json.loads(worker.line())
        assert first == {"pid": worker.process.pid}
        assert (tmp_path / str(worker.process.pid)).exists(), "the pid file that Storm looks for"
        assert worker.line() == b"end\n"
        records = Records(Place("tide.events", TOPIC_ID, DIGEST, 0), [0], [NOW], [raw()])
        worker.tell({"id": "t1", "comp": "up", "stream": "default", "task": 2, "tuple": [pack(records)]})
        emit = worker.hears("emit", "fail", "error")
        assert emit["command"] == "emit"
        assert unpack(emit["tuple"][0], Rows).rows[0][EVENT_ID] == "e1"
        assert worker.hears("ack", "fail") == {"command": "ack", "id": "t1"}
    assert worker.process.returncode == 2, "it leaves when the pipe closes"


def test_a_spout(tmp_path):
    settings = {
        "log.path": str(tmp_path / "log.db"),
        "redis.url": f"unix://{tmp_path}/nobody.sock",
        "sql.dsns": f"sqlite:///{tmp_path}/shard.sqlite",
        "slice.wait_ms": 0,
    }
    migrate(settings["sql.dsns"])  # one store answers; with none the spout would wait
    log = open_log(Settings(settings))
    log.admin().create_topics({f"tide.{name}": 1 for name in topics.ALL})
    log.producer().send([Outgoing("tide.events", b"u1", raw(), (), 0)], 5.0)
    folder = tmp_path / "worker"
    folder.mkdir()
    with Worker("spouts.slices.KafkaSpout", folder, {f"tide.{k}": v for k, v in settings.items()}) as worker:
        assert json.loads(worker.line()) == {"pid": worker.process.pid}
        assert worker.line() == b"end\n"
        worker.tell({"command": "next"})
        heard = worker.hears("emit", "sync", "error")
        for _ in range(100):
            if heard["command"] == "emit":
                break
            assert heard["command"] == "sync"
            worker.tell({"command": "next"})
            heard = worker.hears("emit", "sync", "error")
        assert heard["command"] == "emit"
        assert unpack(heard["tuple"][0], Records).offsets == [0]
        assert worker.hears("sync", "error") == {"command": "sync"}
        worker.tell({"command": "ack", "id": heard["id"]})
        assert worker.hears("sync", "error") == {"command": "sync"}
    assert worker.process.returncode == 2, "though a thread is still watching the stores"
