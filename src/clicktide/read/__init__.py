"""Reading what the pipeline has stored: buckets and timelines in Redis, rows in SQL, records on the log.

It only reads, and promises: what a read needs of Redis is said as commands before anything is sent, so that one
answer is one pipeline, and the sync and the async caller share the same code.
"""
