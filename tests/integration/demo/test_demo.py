"""`./tide demo` as a newcomer meets it: up, traffic, a balanced ledger, a clean end; and what can go wrong."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.context import settings_for
from clicktide.log import open_log
from clicktide.log.port import Outgoing

sys.path.insert(0, str(Path(__file__).resolve().parent))
from demo_process import COMMAND, DemoProcess, demo, environment, processes_of, tide, views, wait_for

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """A demo without traffic, shared by the tests that only look."""
    with demo(tmp_path_factory.mktemp("idle"), "--no-traffic") as made:
        yield made


def test_the_page_and_the_api_answer_on_the_one_port(idle):
    urls = idle.record()["urls"]

    def answers(url: str) -> bool:
        answer = httpx.get(url, timeout=10)
        # A store may answer too late on a machine that is starting a dozen other things.
        assert answer.status_code == 200 or (answer.status_code == 503 and answer.headers["Retry-After"])
        return answer.status_code == 200

    for url in (urls["page"], urls["docs"], urls["query"] + "/v1/metrics/events"):
        wait_for(lambda url=url: answers(url), url)


def test_other_commands_find_the_running_demo(idle):
    lag = tide("lag", "--json", "--data-dir", str(idle.data_dir))
    assert lag.returncode == 0, lag.stderr
    assert lag.stdout.count('"topic": "tide.events"') == 8
    doctor = tide("doctor", "--data-dir", str(idle.data_dir))
    assert doctor.returncode == 0, doctor.stdout
    assert f"runs, pid {idle.process.pid}" in doctor.stdout
    assert [line for line in doctor.stdout.splitlines() if line.startswith("ok     sql")]


def test_a_dead_letter_that_is_edited_at_the_desk_ends_stored(idle, tmp_path):
    producer = open_log(settings_for("embedded", idle.data_dir, {})).producer()
    broken = b'{"event_id":"desk-1","type":"pay","user_id":"desk","order_id":"o1","amount":"12.50"}'
    producer.send([Outgoing("tide.events", b"desk", broken)], 10.0)
    producer.close()

    def desk(command: str, *words: str) -> str:
        done = tide("dead", command, *words, "--data-dir", str(idle.data_dir))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (letter,) = wait_for(lambda: desk("list", "--json", "--user", "desk").splitlines(), "the dead letter")
    name = json.loads(letter)["id"]
    assert desk("show", name, "--raw") == broken.decode()
    mended = json.loads(broken) | {"amount": 1250, "occurred_at": int(time.time() * 1000)}
    (tmp_path / "mended").write_text(json.dumps(mended) + "\n")
    desk("replay", name, "--edit", str(tmp_path / "mended"))
    query = idle.record()["urls"]["query"]

    def get(path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{query}{path}", timeout=10) as answer:
            return json.load(answer)

    def shown(path: str) -> dict[str, Any] | None:
        try:
            return get(path)
        except urllib.error.HTTPError:
            return None

    wait_for(lambda: (shown("/v1/events/desk-1") or {}).get("state") == "stored", "the mended event")
    assert wait_for(lambda: shown("/v1/orders/o1"), "the order")["history"]["paid"]["amount"] == 1250
    assert wait_for(lambda: shown("/v1/users/desk/timeline"), "it")["events"][0]["event_id"] == "desk-1"
    assert desk("list", "--json", "--user", "desk") == ""


def test_a_second_demo_is_refused_with_the_pid_of_the_first(idle):
    done = tide("demo", "--port", "0", "--data-dir", str(idle.data_dir))
    assert done.returncode == 1
    assert f"pid {idle.process.pid}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_with_a_time_limit_balances_and_kill_9_of_any_process_costs_nothing(tmp_path):
    data = tmp_path / "data: with blanks, and #"
    made = DemoProcess(data, "--seconds", "8", "--rate", "200", output=tmp_path / "output.txt")
    try:
        made.wait_up()
        url = made.record()["urls"]["query"]
        for name in ("services", "redis", "events", "redrive"):
            before = views(url)
            # Each kill finds work under way, unless the machine is so slow that the traffic is over.
            wait_for(lambda least=before: views(url) > least or "draining" in made.said(), "events")
            made.kill(name)
        assert made.process.wait(250) == 0, made.said()
        assert "1600 records" in made.said()
        assert "FAIL" not in made.said()
        assert "balanced" in made.said()
        assert processes_of(data) == {}
    finally:
        made.end(signal.SIGKILL)
        made.nothing_left()


def test_kill_9_of_the_demo_leaves_nothing_and_the_next_goes_on(tmp_path):
    with demo(tmp_path) as made:
        made.process.kill()
        made.process.wait()
        made.nothing_left()
        again = tide("demo", "--port", "0", "--seconds", "2", "--data-dir", str(made.data_dir), timeout_s=200)
        assert again.returncode == 0, again.stdout + again.stderr


def test_ctrl_c_on_a_terminal_ends_it_quietly(tmp_path):
    data = tmp_path / "data"
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "demo", "--port", "0", "--data-dir", str(data)],
        env=environment(TERM="xterm"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=own_terminal,  # noqa: PLW1509 - no thread runs here
    )
    os.close(terminal)
    said = bytearray()

    def read() -> bool:
        said.extend(os.read(screen, 65536))
        return b"lag" in said

    try:
        wait_for(read, "the status line")
        os.write(screen, b"\x03")
        drain(screen, said)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    assert b"Traceback" not in said
    assert b"\r\x1b[K" in said
    wait_for(lambda: not processes_of(data), "the end of its processes")


def own_terminal() -> None:
    """The child's terminal is its own, so that ^C reaches it and nobody else."""
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def drain(screen: int, said: bytearray) -> None:
    try:
        while piece := os.read(screen, 65536):
            said.extend(piece)
    except OSError:  # the other side is closed
        pass


def test_a_port_in_use_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = tide("demo", "--port", str(port), "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert (
        done.stderr
        == f"tide demo: port {port} on 127.0.0.1: Address already in use; choose another with --port\n"
    )
    assert processes_of(tmp_path / "data") == {}


def test_a_store_that_cannot_be_opened_is_one_line_and_stops_everything(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "shard-0.sqlite").write_bytes(b"this is no database" * 100)
    done = tide("demo", "--port", "0", "--data-dir", str(data))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot prepare the stores" in done.stderr
    assert processes_of(data) == {}


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--rate", "0"], "--rate"),
        (["--seconds", "x"], "--seconds"),
        (["--file", "nowhere.csv"], "nowhere.csv"),
        (["--no-traffic", "--seconds", "1"], "--no-traffic"),
        (["--port", "70000"], "70000"),
    ],
)
def test_a_wrong_flag_is_one_line(tmp_path, words, part):
    done = tide("demo", "--data-dir", str(tmp_path / "data"), *words)
    assert done.returncode in (1, 2)
    assert part in done.stderr
    assert done.stderr.count("\n") == 1
