"""The page of `vecbeam serve`: search, compare and look at a collection in a browser on this machine."""
