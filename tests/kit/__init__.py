"""Shared by the tests: virtual time, a scripted provider, clients, and an in-memory container."""
