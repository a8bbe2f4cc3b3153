"""Several processes, grids of runs, clusters, annotation of millions of photos."""
