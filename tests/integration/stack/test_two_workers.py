"""Our own topology on two workers: what passes between them goes through Kryo, and nothing is lost or doubled by it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import scale
from deploy.stack.settings import PROJECT, StackSettings
from deploy.stack.stack import Stack

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]


def say(line: str) -> None:
    print(line, file=sys.stderr)


def test_events_between_two_workers(stack: Stack, stack_settings: StackSettings, tmp_path: Path) -> None:
    assert stack.settings is stack_settings
    course = scale.Course(records=2_000, rate=1_000)
    with scale.topologies(stack_settings, tmp_path, PROJECT, say, ("events",)) as environ:
        with scale.traffic(tmp_path, environ, course) as all_sent:
            all_sent()
        found = scale.judge(tmp_path, environ)
        assert found["balanced"], found
        assert len(scale.workers_of(stack_settings, "events")) == 2
