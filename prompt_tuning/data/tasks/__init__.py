"""The seqio side of the catalogue: importing a module registers its tasks."""
