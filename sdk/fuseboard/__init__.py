"""Fuseboard: circuit breakers for AI agents."""
