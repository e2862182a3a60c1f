"""The log: partitioned, durable, replayable topics behind one port (Kafka, or one SQLite file)."""
