"""What brings a volume back, or says what is wrong with it: journals, checkpoint copies, rebuilding, checks."""
