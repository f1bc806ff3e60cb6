"""Statistics of activations that stream by, of corpora of any length."""
