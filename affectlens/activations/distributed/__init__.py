"""Captures spread over Ray actors."""
