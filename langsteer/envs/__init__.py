"""The CALVIN-compatible simulator."""
