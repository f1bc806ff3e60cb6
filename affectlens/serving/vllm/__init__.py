"""Steering in stock vLLM: a plug-in that does nothing until a pack is configured.

`register` is the entry point (group ``vllm.general_plugins``); see ``docs/serving.md``.
"""
