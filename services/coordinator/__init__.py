"""The task runtime's coordinator: queues, routes and fences LLM tasks; workers execute them."""
