"""Other versions of texts, for training and for trying a model on noise. Chinese and English alike."""
