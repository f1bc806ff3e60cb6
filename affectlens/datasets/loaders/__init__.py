"""Corpora from elsewhere, one loader each."""
