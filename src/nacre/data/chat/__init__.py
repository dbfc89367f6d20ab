"""Conversations: files of any common format as messages, messages as tokens, and which of them are trained."""
