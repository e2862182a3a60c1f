"""The live page's feed: one sampler reads the stores once a second, all clients get what it read."""
