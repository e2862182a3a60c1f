"""The fast store: claims, timelines and buckets in Redis, changed by two scripts and nothing else."""
