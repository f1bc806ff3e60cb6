"""Tests of the plug-in on real vLLM; they run in an environment of their own."""
