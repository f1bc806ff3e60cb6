"""Corpora run through models: what runs together, what is kept, and by which engine."""
