"""Cost, requirements, the pick and its record."""
