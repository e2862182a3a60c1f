"""The collector: takes events over HTTP and answers once the broker has acknowledged them."""
