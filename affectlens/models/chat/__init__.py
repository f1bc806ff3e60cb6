"""Chats as the model sees them."""
