"""`python -m services all|collector|query|dashboard [--host H] [--port N] [-e ENV]`.

Settings come from `envs.<env>.options` of config.json (`TIDE_CONFIG`, else the working directory's, if there is one) and `TIDE_*`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from clicktide.errors import ClicktideError
from clicktide.settings import Settings, from_environment, options_of


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m services", description="Serve Clicktide over HTTP.")
    parser.add_argument("service", choices=("all", "collector", "query", "dashboard"))
    parser.add_argument("--host", help="address to listen on (default: setting http.host)")
    parser.add_argument("--port", type=int, help="port to listen on (default: the service's setting)")
    parser.add_argument("-e", "--environment", default=os.environ.get("TIDE_ENV", "embedded"), metavar="ENV")
    parser.add_argument("--access-log", action="store_true", help="one JSON line a request on stderr")
    given = parser.parse_args(arguments)
    try:
        settings = settings_of(given.environment)
        from services.main import run

        run(
            given.service,
            settings,
            host=given.host,
            port=given.port,
            access_log=given.access_log,
            say=lambda line: print(line, flush=True),
        )
    except ClicktideError as e:
        print(f"services: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def settings_of(environment: str) -> Settings:
    """Raises `SettingError`."""
    config = Path(os.environ.get("TIDE_CONFIG", "config.json"))
    options = options_of(config, environment) if config.exists() else {}
    return from_environment(os.environ, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
