"""Policies in other processes: openpi's protocol, for serving ours and for evaluating anybody's."""
