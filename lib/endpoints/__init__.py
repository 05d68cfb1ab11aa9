"""Where a model answers: serve, send, keep, price."""
