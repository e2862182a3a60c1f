"""The example in docs/client.md runs as it stands, and the options are those that there are."""

import inspect
import re
from pathlib import Path

from fake_collector import fake_collector

from clicktide.client import Client

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "client.md").read_text("utf-8")


def test_the_example_runs(capsys):
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    with fake_collector() as server:
        exec(code.replace("http://127.0.0.1:8080", server.url), {})  # noqa: S102 (our own document)
        assert [e["type"] for e in server.events()] == ["view", "pay"]
        assert "accepted=2" in capsys.readouterr().out


def test_every_option_is_in_the_table():
    options = set(inspect.signature(Client).parameters) - {"url"}
    table = "".join(line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", table)) == options
