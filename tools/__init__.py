"""For whoever keeps the tables in `data/`; not imported by `lib`."""
