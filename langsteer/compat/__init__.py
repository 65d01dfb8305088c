"""CALVIN as LangSteer has it, behind the interfaces of other people's code."""
