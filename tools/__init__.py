"""What builds and tries the package from outside; not part of it."""
