"""One life of one trainer, whoever wrote it."""
