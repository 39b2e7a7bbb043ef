"""Doubles that ship with the package and pass the same suites as the real thing."""
