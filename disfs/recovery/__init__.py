"""The metadata's copy in Discord, what a volume is rebuilt from, and the check of a volume."""
