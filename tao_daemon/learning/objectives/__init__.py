"""The algorithms: one file each, with its formula and its source."""
