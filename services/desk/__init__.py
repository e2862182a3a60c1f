"""The desk over HTTP: dead letters listed, shown, replayed and removed, by the same library as `./tide dead`."""
