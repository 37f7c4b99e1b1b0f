"""Attachments of messages as a store: one Protocol, its implementations, its wrappers."""
