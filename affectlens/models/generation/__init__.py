"""Generation: one loop for every arm of every comparison."""
