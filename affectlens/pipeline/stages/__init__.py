"""The stages of a run, each a function from the files before it to its own.

A stage takes a `StageRun`: constants come from its settings, what it reads from what its row in
`affectlens.pipeline.line` declares. A module here holds no numbers;
`tests/pipeline/test_settings.py` sees to that.
"""
