"""Personal data and secrets in text: found, masked so that they can be restored, or scrubbed for good.

Standard library only. `find` says where they are, `Masker` replaces them by placeholders within one request, `Restorer`
puts them back in a stream, `scrubbed` leaves nothing to restore (logs, data cleaning).
"""

from nacre.data.masking.find import find
from nacre.data.masking.kinds import KINDS, Found, Tagger
from nacre.data.masking.masker import Masker, Restorer, scrubbed
from nacre.data.masking.policy import Policy

__all__ = ["KINDS", "Found", "Masker", "Policy", "Restorer", "Tagger", "find", "scrubbed"]
