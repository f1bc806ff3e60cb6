"""Where attention, MLP, norms and projections of a model are, and whether that is so."""
