"""What puts Clicktide onto machines: the local real stack, compose, Kubernetes, systemd, migrations.

Nothing here is shipped to Storm's workers.
"""
