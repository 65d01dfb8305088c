"""Scripted skills that solve CALVIN's tasks, and the recorder of demonstrations."""
