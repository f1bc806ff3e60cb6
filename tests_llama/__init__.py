"""Exported control vectors in real llama.cpp, in an environment of its own."""
