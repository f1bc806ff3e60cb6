"""Steering inside generation servers."""
