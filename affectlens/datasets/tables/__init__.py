"""Tables of a user's own: which bytes are which cells, and what a cell means."""
