"""`./tide serve`: the collector, the query service, the live page, or all of them on one port."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.context import DataDirOption, EnvOption, settings_for

app = typer.Typer(no_args_is_help=True, help="Serve Clicktide over HTTP until Ctrl-C.", add_completion=False)

HostOption = Annotated[
    str | None, typer.Option("--host", help="Address to listen on.  [default: setting http.host]")
]
PortOption = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65535, help="Port to listen on.  [default: the service's setting]"),
]
AccessOption = Annotated[
    bool, typer.Option("--access-log", help="One JSON line a request, on standard error.")
]


def _add(name: str, help_line: str) -> None:
    @app.command(name, help=help_line)
    def command(
        env: EnvOption = "embedded",
        data_dir: DataDirOption = None,
        host: HostOption = None,
        port: PortOption = None,
        *,
        access_log: AccessOption = False,
    ) -> None:
        # Imported here, so that `--help` and other commands do not pay for the server.
        from services.main import run

        run(
            name,
            settings_for(env, data_dir),
            host=host,
            port=port,
            access_log=access_log,
            say=lambda line: print(line, flush=True),
        )


_add("collector", "Take events by HTTP (port 8080).")
_add("query", "Answer queries (port 8081).")
_add("dashboard", "The live page (port 8082).")
_add("all", "All of them on one port (8080).")
