"""From samples of files to a configuration, for `vecbeam init`."""
