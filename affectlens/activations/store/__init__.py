"""The activation store: its folder, its shards, who writes it and how rows are read."""
