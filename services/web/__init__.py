"""The web kit: what every service that answers HTTP stands on. It never knows a task, a project or a database.

A service declares each route once (`routes.Route`); validation, permission, document and test table derive from that.
"""

# Loaded before aiohttp: nats-py would take its websocket transport from it, which costs memory and is never used.
from membridge import bus as bus
