"""`python -m affectlens`: the command line."""

from affectlens.cli import main

if __name__ == "__main__":
    main()
