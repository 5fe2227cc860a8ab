"""What can go wrong on the way that is no mistake of the user's."""

from __future__ import annotations


class InstallationError(Exception):
    """Something failed while running: the network, pip, git or the installed Detectron2.

    Its text is one line with the reason and the mend; commands end in exit status 1 on it, where an
    `InputError` (a mistake in what the user gave) ends in 2.
    """
