"""LangSteer's CALVIN behind the interfaces of other people's code."""
