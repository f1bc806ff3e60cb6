"""Steering in this process, by hooks that know which row and which token they see."""
