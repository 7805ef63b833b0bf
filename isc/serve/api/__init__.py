"""The HTTP API of the service, and its page."""
