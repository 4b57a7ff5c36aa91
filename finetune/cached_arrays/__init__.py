"""Arrays on disk, found again by what they were made from: whole, or not at all.

An entry is a folder ``entries/<key>`` of raw arrays and a manifest of their sizes and checksums. It is written
aside under ``drafts/``, synced and renamed, so a process that dies leaves no half entry, and of two that make
the same one at once the first wins. An entry that is removed while somebody has it mapped stays readable to
them: its files go when the last map does.
"""

from .cache import ArrayCache, CacheUnavailable, Draft, folder_of, open_draft

__all__ = ["ArrayCache", "CacheUnavailable", "Draft", "folder_of", "open_draft"]
