"""Steering of Transformers models, by hooks that know which row and which token they see."""
