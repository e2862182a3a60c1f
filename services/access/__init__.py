"""Access: keys, who may do what with which key, and how much of it."""
