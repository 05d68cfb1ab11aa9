"""Parameters to tier, memory and machine."""
