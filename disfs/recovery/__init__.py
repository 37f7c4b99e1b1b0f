"""The metadata's copy in Discord: shipped while a volume is mounted, and what a volume is rebuilt from."""
