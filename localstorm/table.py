"""A live table of a run on a terminal."""

from rich import box
from rich.console import Console as Terminal
from rich.live import Live
from rich.table import Table
from rich.text import Text

from localstorm.stats import Snapshot, summary

_STYLES = {"WARNING": "yellow", "ERROR": "red"}


def render(snapshot: Snapshot) -> Table:
    """The run as a table, one component a row."""
    table = Table(
        title=f"{snapshot.topology}: {snapshot.state}, {snapshot.uptime:.0f} s, {snapshot.trees} tuples pending",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("component")
    for heading in (
        "tasks",
        "rate/s",
        "emitted",
        "acked",
        "failed",
        "latency\nms",
        "capacity",
        "waiting",
        "restarts",
    ):
        table.add_column(heading, justify="right")
    for row in snapshot.components:
        whole = row.running == row.tasks or snapshot.state == "ended"
        up = f"{row.tasks}" if whole else f"[red]{row.running} of {row.tasks}[/red]"
        table.add_row(
            row.name,
            up,
            f"{row.rate:,.0f}",
            f"{row.emitted:,}",
            f"{row.acked:,}",
            f"[red]{row.failed:,}[/red]" if row.failed else "0",
            f"{row.latency_ms:,.2f}",
            f"{row.capacity:.2f}",
            f"{row.pending if row.kind == 'spout' else row.queued + row.inflight:,}",
            f"[red]{row.restarts}[/red]" if row.restarts else "0",
        )
    return table


class TableConsole:
    """The table at the bottom of the terminal, messages above it."""

    def __init__(self) -> None:
        terminal = Terminal()
        if not terminal.is_terminal:
            terminal = Terminal(width=100)
        self._live = Live(console=terminal, auto_refresh=False)
        self._live.start()
        self._last: Snapshot | None = None

    def line(self, level: str, text: str) -> None:
        """Shows a message."""
        self._live.console.print(Text(text, style=_STYLES.get(level, "")))

    def show(self, snapshot: Snapshot) -> None:
        """Draws the table anew."""
        self._last = snapshot
        self._live.update(render(snapshot), refresh=True)

    def close(self) -> None:
        """Leaves the last table standing."""
        self._live.stop()
        if self._last:
            self._live.console.print(summary(self._last))
