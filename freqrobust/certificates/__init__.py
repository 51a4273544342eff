"""Built-in certificates; they are found by entry point like any other plugin, and the engine imports none of them."""
