"""The embedded services: everything that `./tide demo` runs, in one data directory, without a JVM and without root."""
