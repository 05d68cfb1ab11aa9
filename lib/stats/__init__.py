"""Intervals, paired tests and ties."""
