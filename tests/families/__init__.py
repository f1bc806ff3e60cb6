"""Tiny random models of many families, with plain hooks to hold everything against."""
