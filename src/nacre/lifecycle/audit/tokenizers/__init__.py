"""Stage 2 of the audit: is one tokenizer the other, an extension of it, or explained by a shared corpus and recipe?"""

from nacre.lifecycle.audit.tokenizers.formats import load_vocabulary
from nacre.lifecycle.audit.tokenizers.stage import compare
from nacre.lifecycle.audit.tokenizers.vocabulary import Vocabulary

__all__ = ["Vocabulary", "compare", "load_vocabulary"]
