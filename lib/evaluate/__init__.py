"""Items to answers to scores."""
