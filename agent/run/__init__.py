"""The life of a run on this VM, from its first attempt to its last notice."""
