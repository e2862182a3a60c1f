"""Retry: what becomes of a failed event. The policy decides, the envelope carries it from topic to topic."""
