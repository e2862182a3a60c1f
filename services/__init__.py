"""The services: collector, query service and live dashboard, as one ASGI application or three."""
