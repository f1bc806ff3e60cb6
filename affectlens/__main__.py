"""`python -m affectlens`: the command line."""

from affectlens.cli import main

main()
