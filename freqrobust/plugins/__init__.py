"""What a plugin author needs: base classes, contexts, the registry, specs, suites."""
