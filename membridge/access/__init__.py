"""Access: users and permissions of the bus, invitations, enrolment, revocation, the server's files.

Never carries memory: it decides which machine may connect and what it may send.
"""
