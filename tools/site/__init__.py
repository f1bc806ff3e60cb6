"""The documentation site: what MkDocs is given beside the pages of ``docs/``."""
