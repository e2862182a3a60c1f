"""One module a kind of server: its configuration, its command, and how it shows that it answers."""
