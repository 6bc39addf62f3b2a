"""Pages to look at in a browser: one file each, which loads nothing else."""
