"""Clicktide's core: pure logic, ports and their adapters. It knows nothing of Storm."""

__version__ = "0.1.0"
