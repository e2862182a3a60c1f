"""Apache Storm laid out from its jars, and a `storm` command for machines that have none."""
