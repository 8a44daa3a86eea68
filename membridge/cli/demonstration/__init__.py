"""The demonstration: two nodes as processes with homes of their own, a writer, and the story that checks them."""
