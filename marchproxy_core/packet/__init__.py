"""The packet engine: one set of C headers (``c/``), its layout, its tables, and who fills and empties them."""
