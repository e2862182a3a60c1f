"""Chaos: a seeded schedule of faults against a running Clicktide under traffic, judged by the ledger."""
