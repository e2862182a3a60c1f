"""The Python client: takes events from an application and brings them to the collector in the background.

Standard library only, and nothing of the rest of Clicktide: `python -m deploy.client` makes a wheel of this folder alone.
How to use it: docs/client.md.
"""

from clicktide.client.client import Client
from clicktide.client.counters import Counters
from clicktide.client.errors import ClientClosed, ClientError, QueueFull

__all__ = ["Client", "ClientClosed", "ClientError", "Counters", "QueueFull"]
