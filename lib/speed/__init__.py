"""Load and capacity."""
