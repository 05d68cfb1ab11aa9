"""Figures and pages: frames in, pictures out."""
