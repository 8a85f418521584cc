"""Files in object stores: obstore where it can, Beam's filesystems where it can't."""
