"""Sources (files, folders, Hub ids), and stores that turn them into batches."""
