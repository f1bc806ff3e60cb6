"""Mixtures of experts: which experts every token was sent to, and what their neurons did."""
