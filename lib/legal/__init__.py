"""Licence, company, country and lineage to a verdict."""
