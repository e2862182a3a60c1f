"""The query service: reads what the pipeline has stored, and always says as of when and what is missing."""
